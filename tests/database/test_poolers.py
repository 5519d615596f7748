"""PostgreSQL behind PgBouncer: settings hold in each transaction, and a pooler that needs a setting is reported."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal

import psycopg
import pytest
from sqlalchemy import make_url, text

from app.database import Database
from app.database.models import MediaStatus
from app.errors import DatabaseUnfit
from app.outbox.watch import POLL_SECONDS, ChangeWatcher
from tests import fork_server
from tests.eventually import eventually
from tests.outbox.world import Receiver, World
from tests.paths import ROOT
from tests.servers.poolers import PGBOUNCER, pgbouncer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PGBOUNCER is None, reason="there is no PgBouncer (Debian: apt install pgbouncer)"),
]

Mode = Literal["session", "transaction"]
MODES: tuple[Mode, ...] = ("session", "transaction")
MUST_HOLD = {
    "transaction_isolation": "read committed",
    "synchronous_commit": "on",
    "search_path": '"$user", public',
    "lock_timeout": "1500ms",
    "statement_timeout": "4500ms",
    "idle_in_transaction_session_timeout": "3s",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
}
OTHERWISE = {
    "default_transaction_isolation": "serializable",
    "synchronous_commit": "off",
    "search_path": "elsewhere",
    "lock_timeout": "30ms",
    "statement_timeout": "40ms",
    "idle_in_transaction_session_timeout": "1h",
    "extra_float_digits": "0",
    "client_encoding": "LATIN1",
}


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@contextmanager
def pooled(url: str, mode: Mode, *, size: int = 20, more: str = "") -> Iterator[Database]:
    """The database behind PgBouncer, with the settings that its mode needs."""
    with (
        pgbouncer(url, mode, size=size, more=more) as address,
        closing(Database(address, pooler="transaction" if mode == "transaction" else "none")) as database,
    ):
        yield database


def shown(database: Database) -> dict[str, str]:
    with database.read_transaction() as session:
        return {name: session.execute(text(f"SHOW {name}")).scalar_one() for name in MUST_HOLD}


@pytest.mark.parametrize("mode", ["direct", *MODES])
def test_what_must_hold_holds_whatever_a_role_and_a_database_have_set(mode: str, postgres_url: str) -> None:
    name = make_url(postgres_url).database
    execute(postgres_url, *(f"ALTER DATABASE {name} SET {key} = '{value}'" for key, value in OTHERWISE.items()))
    with ExitStack() as stack:
        if mode == "direct":
            database = stack.enter_context(closing(Database(postgres_url)))
        else:
            database = stack.enter_context(pooled(postgres_url, mode))  # type: ignore[arg-type]
        assert shown(database) == MUST_HOLD
        with database.read_transaction() as session:
            assert session.execute(text("SHOW transaction_isolation")).scalar_one() == "read committed"
            assert session.execute(text("SHOW search_path")).scalar_one() == MUST_HOLD["search_path"]


def test_nothing_is_left_in_a_session_that_others_get_next(postgres_url: str) -> None:
    with pgbouncer(postgres_url, "transaction", size=1) as address:
        with closing(Database(address, pooler="transaction")) as database:
            for _ in range(10):
                assert shown(database) == MUST_HOLD
        with psycopg.connect(address.replace("+psycopg", ""), autocommit=True, prepare_threshold=None) as another:
            left = "SELECT current_setting('statement_timeout'), (SELECT count(*) FROM pg_prepared_statements)"
            assert another.execute(left).fetchone() == ("0", 0)


@pytest.mark.parametrize("mode", MODES)
def test_messages_are_delivered_in_order_by_many_threads_through_few_sessions(mode: Mode, postgres_url: str) -> None:
    """With prepared statements, a sixth of the statements through a transaction pooler would fail."""
    receiver = Receiver()
    size = 3 if mode == "transaction" else 40
    with (
        pooled(postgres_url, mode, size=size, more="server_round_robin = 1") as database,
        closing(World(database)) as world,
        ThreadPoolExecutor(6) as pool,
    ):
        for dispatcher in (dispatchers := [world.dispatcher(receiver) for _ in range(2)]):
            dispatcher.start()
        try:
            statuses = (MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED)
            media_ids = [one.result(60) for one in [pool.submit(world.media, *statuses) for _ in range(60)]]
            eventually(lambda: all(receiver.of(media_id) == [1, 2, 3] for media_id in media_ids))
        finally:
            for dispatcher in dispatchers:
                dispatcher.stop()


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("more", ["", "server_round_robin = 1"])
def test_a_pooler_of_transactions_is_named_at_the_start_where_no_setting_tells_of_it(
    size: int, more: str, postgres_url: str
) -> None:
    with (
        pgbouncer(postgres_url, "transaction", size=size, more=more) as address,
        closing(Database(address)) as database,
        pytest.raises(DatabaseUnfit, match=r"DATABASE_URL leads to a pooler at 127\.0\.0\.1:\d+ .*DATABASE_POOLER=tr"),
    ):
        database.check()


def test_it_is_named_also_while_others_keep_its_sessions_busy(postgres_url: str) -> None:
    """Which session comes next is then random."""
    stop = threading.Event()
    with pgbouncer(postgres_url, "transaction", size=4) as address, ThreadPoolExecutor(4) as pool:

        def work() -> None:
            with closing(Database(address, pooler="transaction")) as other:
                while not stop.is_set():
                    shown(other)

        for _ in range(4):
            pool.submit(work)
        try:
            with closing(Database(address)) as database, pytest.raises(DatabaseUnfit):
                database.check()
        finally:
            stop.set()


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 4])
def test_a_session_pooler_is_reported_and_used(size: int, postgres_url: str) -> None:
    with pooled(postgres_url, "session", size=size) as database:
        assert "a pooler at 127.0.0.1:" in (database.check() or "")
        assert shown(database) == MUST_HOLD


def test_a_server_without_a_pooler_gives_no_occasion_to_speak(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database:
        assert database.check() is None


def test_a_connection_to_listen_on_must_not_lead_to_a_pooler_of_transactions(postgres_url: str) -> None:
    with (
        pgbouncer(postgres_url, "transaction") as address,
        closing(Database(address, pooler="transaction", listen_url=address)) as database,
        pytest.raises(DatabaseUnfit, match="DATABASE_LISTEN_URL leads to a pooler"),
    ):
        database.check()


def started(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("JWT_", "DATABASE_"))}
    return fork_server.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=surroundings | {"JWT_SECRET_KEY": "x" * 32, "ANNOTATIONS_URL": "http://127.0.0.1:9"} | settings,
        timeout=60,
    )


def test_a_start_behind_a_pooler_of_transactions_ends_with_one_line(postgres_url: str, tmp_path: Path) -> None:
    folders = {"IMAGES_DIR": str(tmp_path / "images"), "VIDEOS_DIR": str(tmp_path / "videos")}
    with pgbouncer(postgres_url, "transaction") as address:
        for command in (
            ("gunicorn", "-c", "gunicorn.conf.py", "-b", "127.0.0.1:0", "wsgi:app"),
            ("flask", "outbox", "run"),
            ("alembic", "upgrade", "head"),
        ):
            ended = started(*command, DATABASE_URL=address, **folders)
            assert ended.returncode != 0, command
            lines = [line for line in (ended.stdout + ended.stderr).splitlines() if not line.startswith("{")]
            assert len(lines) == 1, (command, lines)
            assert "set DATABASE_POOLER=transaction." in lines[0]


def arrival(database: Database, change: Callable[[], object]) -> float:
    """Return the seconds from a commit to the wake-up that it causes."""
    looked = threading.Event()
    watcher = ChangeWatcher(database, looked.set)
    watcher.start()
    try:
        assert looked.wait(20)
        time.sleep(0.05)
        looked.clear()
        change()
        began = time.monotonic()
        assert looked.wait(20)
        return time.monotonic() - began
    finally:
        watcher.stop()


def test_commits_of_others_are_polled_for_where_notifications_do_not_work(postgres_url: str) -> None:
    with (
        closing(Database(postgres_url)) as elsewhere,
        closing(World(elsewhere)) as world,
        pooled(postgres_url, "transaction") as database,
    ):
        assert database.listen() is None
        assert (
            arrival(database, lambda: str(world.media()) and None) < POLL_SECONDS + 0.5
        )  # half a second: a busy machine


def test_a_direct_connection_hears_what_is_committed_through_the_pooler(postgres_url: str) -> None:
    with (
        pgbouncer(postgres_url, "transaction") as address,
        closing(Database(address, pooler="transaction", listen_url=postgres_url)) as database,
        closing(World(database)) as world,
        closing(database.listen() or pytest.fail("there is nothing to listen on")) as connection,
    ):
        world.media()
        assert len(list(connection.notifies(timeout=20, stop_after=1))) == 1
