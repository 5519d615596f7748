"""Several hosts on one PostgreSQL over TCP: no message is lost, sent twice or sent out of order."""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from app.database import Database
from app.database.models import MediaStatus
from tests.conftest import migrate
from tests.eventually import eventually
from tests.outbox.hosts import Host, NotPermitted, hosts
from tests.outbox.world import World
from tests.paths import ROOT

pytestmark = pytest.mark.slow

STATUSES = (MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED)
MEDIA = 60


@pytest.fixture
def two_hosts() -> Iterator[tuple[Host, list[Host]]]:
    """A host for the database, and two others."""
    with ExitStack() as stack:
        try:
            server, clients = stack.enter_context(hosts(2))
        except NotPermitted as reason:
            pytest.skip(f"network namespaces cannot be made here: {reason}")
        yield server, list(clients)


@pytest.mark.long
def test_dispatchers_on_two_hosts_share_a_database_and_deliver_all_in_order_and_once(
    two_hosts: tuple[Host, list[Host]], tmp_path: Path
) -> None:
    server, clients = two_hosts
    arrivals = tmp_path / "arrivals"
    arrivals.touch()
    with ExitStack() as stack:
        postgres = _run(stack, server, "tests.servers.postgres", *(client.server for client in clients))
        assert postgres.stdout is not None
        url = postgres.stdout.readline().strip()
        migrate(url)
        with closing(Database(url)) as database, closing(World(database)) as world:
            for client in clients:
                far = make_url(url).set(host=client.server, port=5432, query={}).render_as_string(hide_password=False)
                _run(stack, client, "tests.outbox.other_process", "deliver", far, client.address, str(arrivals))
            eventually(lambda: {client.address for client in clients} <= _connected(database), "both hosts")
            media_ids = [world.media(*STATUSES) for _ in range(MEDIA)]
            eventually(lambda: all(stream.due_at is None for stream in world.streams()), "the last acknowledgement")
    by_media: dict[str, list[int]] = defaultdict(list)
    hosts_seen = set()
    for line in arrivals.read_text().splitlines():
        name, media_id, seq = line.split()
        by_media[media_id].append(int(seq))
        hosts_seen.add(name)
    assert by_media == {media_id: [1, 2, 3] for media_id in media_ids}
    assert hosts_seen == {client.address for client in clients}


def _run(stack: ExitStack, host: Host, module: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a Python module on a host; closing its standard input ends it."""
    command = [*host.within, sys.executable, "-m", module, *arguments]
    return stack.enter_context(
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )


def _connected(database: Database) -> set[str]:
    """Return the addresses of the database's clients."""
    with database.read_transaction() as session:
        return set(session.scalars(text("SELECT DISTINCT host(client_addr) FROM pg_stat_activity")).all()) - {None}
