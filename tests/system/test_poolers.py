"""Row 20: uploads, detections and deliveries on PostgreSQL behind PgBouncer, and while a standby takes over.

FAILOVER_UPLOADS (default 60) is how many uploads meet each.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import migrate
from tests.eventually import eventually
from tests.long import later
from tests.paths import ROOT
from tests.reference.service import ReferenceService
from tests.servers.poolers import PGBOUNCER, pgbouncer
from tests.servers.standby import Server, primary_and_standby, url
from tests.system.promise import Uploads, assert_kept, photo, settle
from tests.system.service import SECRET, Service

UPLOADS = int(os.environ.get("FAILOVER_UPLOADS", "60"))
RETURN_SECONDS = 15
ASTRONAUT = ROOT / "app" / "demo" / "media" / "astronaut.jpg"


@pytest.fixture
def annotations(tmp_path: Path) -> Iterator[ReferenceService]:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as service:
        yield service


def upload(service: Service, uploads: Uploads, numbers: range) -> None:
    with ThreadPoolExecutor(4) as clients:
        for number in numbers:
            clients.submit(uploads.send, service, "/media", photo(number))


@pytest.mark.skipif(PGBOUNCER is None, reason="there is no PgBouncer (Debian: apt install pgbouncer)")
@pytest.mark.parametrize("listen", later(["by polling"], "directly"))
def test_behind_a_pooler_of_transactions_nothing_fails_and_the_promise_is_kept(
    listen: str, postgres_url: str, annotations: ReferenceService, tmp_path: Path
) -> None:
    settings = {"DATABASE_POOLER": "transaction"} | (
        {"DATABASE_LISTEN_URL": postgres_url} if listen == "directly" else {}
    )
    uploads = Uploads()
    # Fewer sessions than the service has threads, and another one each time.
    with pgbouncer(postgres_url, "transaction", size=4, more="server_round_robin = 1") as address:
        service = Service(tmp_path, address, annotations.url, **settings)
        try:
            service.start("--workers", "2")
            upload(service, uploads, range(UPLOADS))
            uploads.promised[service.detected(ASTRONAUT)] = ASTRONAUT.read_bytes()
            assert uploads.refused == []
            assert uploads.cut_off == 0
            settle(service)
            assert_kept(service, annotations, [uploads])
        finally:
            service.stop()
            service.kill()
    assert "Traceback" not in service.log.read_text()


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with primary_and_standby(synchronous=True) as both:
        yield both


@pytest.mark.long
def test_a_standby_that_takes_over_under_load_breaks_no_promise_and_delivery_goes_on(
    servers: tuple[Server, Server], annotations: ReferenceService, tmp_path: Path
) -> None:
    primary, standby = servers
    address = url(servers)
    migrate(address)
    uploads = Uploads()
    service = Service(tmp_path, address, annotations.url, DETECTION="off")
    try:
        service.start("--workers", "2")
        clients = threading.Thread(target=upload, args=(service, uploads, range(UPLOADS)))
        clients.start()
        eventually(lambda: len(uploads.promised) >= UPLOADS // 6)
        standby.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        primary.crash()
        eventually(lambda: len(uploads.refused) > 0)
        assert service.request("GET", "/readyz").status_code == 503
        standby.promote()
        arrived = len(annotations.log())
        eventually(lambda: service.upload("/media", photo(UPLOADS), name="photo.png").ok)
        annotations.wait_for(lambda log: len(log) > arrived, seconds=RETURN_SECONDS)
        clients.join()
        assert uploads.cut_off == 0
        assert set(uploads.refused) <= {503}
        uploads.send(service, "/media", photo(UPLOADS))
        settle(service)
        assert_kept(service, annotations, [uploads])
    finally:
        service.stop()
        service.kill()
