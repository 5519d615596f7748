"""Transactions: durability, waiting for locks, and the errors that callers get."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Integer, literal_column, select, text, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError

from app.database import Database, ReadTransaction, Topic
from app.database.models import OutboxCircuit
from app.database.schema import schema_revision
from app.database.sql_functions import upsert
from app.database.sqlite_backend import SAFE_SQLITE
from app.errors import StorageFull, Unavailable

pytestmark = pytest.mark.slow

COUNT_UP = """
import sys
from concurrent.futures import ThreadPoolExecutor
from sqlalchemy import text
from app.database import Database

def count_up(database):
    for _ in range(int(sys.argv[3])):
        with database.write_transaction() as session:
            value = session.execute(text("SELECT failures FROM outbox_circuit")).scalar_one()
            session.execute(text("UPDATE outbox_circuit SET failures = :value"), {"value": value + 1})

database = Database(sys.argv[1])
with ThreadPoolExecutor(int(sys.argv[2])) as pool:
    for done in [pool.submit(count_up, database) for _ in range(int(sys.argv[2]))]:
        done.result()
database.close()
"""
PROCESSES, THREADS, TRANSACTIONS = map(int, os.environ.get("TEST_CONTENTION", "2x4x50").split("x"))
"""TEST_CONTENTION=4x8x1000 is the full figure: processes × threads × transactions."""
BACKEND = select(literal_column("pg_backend_pid()", Integer()).label("pid"))


def backend_of(database: Database) -> int:
    with database.read_transaction() as session:
        return session.scalars(BACKEND).one()


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Database]:
    with closing(Database(sqlite_url, busy_seconds=0.3)) as database:
        yield database


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Database]:
    with closing(Database(postgres_url, busy_seconds=0.3)) as database:
        yield database


def add_circuit(database: Database, endpoint: str = "endpoint") -> None:
    with database.write_transaction() as session:
        session.add(OutboxCircuit(endpoint=endpoint, state="closed", failures=0))


def failures(database: Database) -> int:
    with database.read_transaction() as session:
        return session.scalars(select(OutboxCircuit.failures)).one()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_processes_and_threads_that_read_and_then_write_lose_no_update_and_never_find_it_locked(
    sqlite_url: str,
) -> None:
    with closing(Database(sqlite_url)) as database:
        add_circuit(database)
        command = [sys.executable, "-c", COUNT_UP, sqlite_url, str(THREADS), str(TRANSACTIONS)]
        running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
        errors = [process.communicate(timeout=800)[1] for process in running]
        assert errors == [""] * PROCESSES
        assert failures(database) == PROCESSES * THREADS * TRANSACTIONS


def test_every_sqlite_connection_is_durable_and_keeps_foreign_keys(sqlite: Database) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(sqlite.reader.connect())
            pragmas = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
            assert pragmas == ["wal", 2, 1, 300]


def test_every_postgres_connection_commits_synchronously_and_waits_within_limits(postgres: Database) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            session = stack.enter_context(postgres.read_transaction())
            shown = [
                session.execute(text(f"SHOW {name}")).scalar_one()
                for name in ("synchronous_commit", "lock_timeout", "statement_timeout")
            ]
            assert shown == ["on", "300ms", "900ms"]


def test_a_writing_transaction_takes_the_write_lock_before_it_reads(sqlite: Database, sqlite_url: str) -> None:
    with (
        sqlite.write_transaction() as session,
        closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as other,
    ):
        session.execute(text("SELECT count(*) FROM media"))
        other.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


def test_readers_go_on_while_another_writes_and_see_one_state(database: Database) -> None:
    add_circuit(database)
    with database.read_transaction() as session:
        assert session.scalars(select(OutboxCircuit.failures)).one() == 0
        with database.write_transaction() as writer:
            writer.execute(text("UPDATE outbox_circuit SET failures = 7"))
    assert failures(database) == 7


def test_an_exception_takes_back_everything(database: Database) -> None:
    def fail_half_way() -> None:
        with database.write_transaction() as session:
            session.add(OutboxCircuit(endpoint="endpoint", state="closed", failures=0))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    with database.read_transaction() as session:
        assert session.scalars(select(OutboxCircuit)).all() == []


def test_a_read_transaction_changes_nothing(database: Database) -> None:
    add_circuit(database)

    def add(session: ReadTransaction) -> None:
        session.add(OutboxCircuit(endpoint="another", state="closed", failures=0))
        session.flush()

    def change(session: ReadTransaction) -> None:
        session.execute(update(OutboxCircuit).values(failures=7))

    for attempt in (add, change):
        with pytest.raises(InvalidRequestError), database.read_transaction() as session:
            attempt(session)
    assert failures(database) == 0


def test_a_conflict_stays_a_conflict_for_the_caller_to_handle(database: Database) -> None:
    add_circuit(database)
    with pytest.raises(IntegrityError):
        add_circuit(database)


def test_a_writer_waits_for_its_turn_and_then_succeeds(database_url: str) -> None:
    first, second = Database(database_url), Database(database_url)
    with closing(first), closing(second), ThreadPoolExecutor(1) as pool:
        add_circuit(first)
        with first.write_transaction() as session:
            session.execute(text("UPDATE outbox_circuit SET failures = failures + 1"))
            waiting = pool.submit(count_one_more, second)
            assert not threading.Event().wait(0.2)
            assert not waiting.done()
        waiting.result(30)
        assert failures(first) == 2


def count_one_more(database: Database) -> None:
    with database.write_transaction() as session:
        session.execute(text("UPDATE outbox_circuit SET failures = failures + 1"))


def test_a_database_busy_in_another_process_beyond_the_limit_is_unavailable(database_url: str) -> None:
    first, second = Database(database_url), Database(database_url, busy_seconds=0.3)
    with closing(first), closing(second):
        add_circuit(first)
        with first.write_transaction() as session:
            session.execute(text("UPDATE outbox_circuit SET failures = failures + 1"))
            began = time.monotonic()
            with pytest.raises(Unavailable) as refused:
                count_one_more(second)
            assert 0.2 < time.monotonic() - began < 15
        assert refused.value.retry_after > 0
        count_one_more(second)
        assert failures(first) == 2


def test_a_database_busy_in_this_process_beyond_the_limit_is_unavailable(sqlite: Database) -> None:
    add_circuit(sqlite)
    with sqlite.write_transaction() as session, ThreadPoolExecutor(1) as pool:
        session.execute(text("UPDATE outbox_circuit SET failures = failures + 1"))
        with pytest.raises(Unavailable, match="busy"):
            pool.submit(count_one_more, sqlite).result(30)


def test_a_failed_turn_gives_the_next_writer_its_turn(sqlite: Database) -> None:
    for _ in range(3):
        with pytest.raises(RuntimeError), sqlite.write_transaction():
            raise RuntimeError
    add_circuit(sqlite)
    assert failures(sqlite) == 0


def test_when_all_connections_are_in_use_the_next_caller_gets_unavailable(database_url: str) -> None:
    def take_all() -> None:
        with closing(Database(database_url, busy_seconds=0.2)) as database, ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(database.read_transaction()).execute(text("SELECT 1"))

    with pytest.raises(Unavailable, match="connection"):
        take_all()


def test_a_full_database_is_reported_as_such_and_works_again_once_there_is_room(sqlite: Database) -> None:
    def use_up() -> None:
        with sqlite.write_transaction() as session:
            pages = session.execute(text("PRAGMA page_count")).scalar_one()
            session.execute(text(f"PRAGMA max_page_count = {pages}"))
            session.execute(
                text("INSERT INTO outbox_circuit VALUES ('x', 'closed', 0, NULL, hex(randomblob(100000)), NULL, NULL)")
            )

    with pytest.raises(StorageFull):
        use_up()
    with sqlite.reader.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    add_circuit(sqlite)


def test_a_postgres_server_out_of_reach_is_unavailable(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://nobody@/nothing?host={tmp_path}"
    with closing(Database(url)) as database, pytest.raises(Unavailable), database.read_transaction() as session:
        session.execute(text("SELECT 1"))


def test_a_connection_that_the_server_ends_is_unavailable_once_and_replaced(
    postgres: Database, postgres_url: str
) -> None:
    def be_ended() -> None:
        with postgres.write_transaction() as session:
            backend = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))
            session.execute(text("SELECT 1"))

    with pytest.raises(Unavailable):
        be_ended()
    add_circuit(postgres)
    assert failures(postgres) == 0


def test_a_pooled_connection_that_the_server_has_ended_is_replaced_unnoticed(
    postgres: Database, postgres_url: str
) -> None:
    backend = backend_of(postgres)
    assert backend_of(postgres) == backend
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))
    assert backend_of(postgres) != backend
    add_circuit(postgres)


def test_a_single_read_is_one_statement_to_the_server(postgres: Database, postgres_url: str) -> None:
    backend = backend_of(postgres)
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other:
        last = "SELECT state, query FROM pg_stat_activity WHERE pid = %s"
        assert other.execute(last, (backend,)).fetchone() == ("idle", "SELECT pg_backend_pid() AS pid")


def test_a_read_transaction_holds_nothing_of_the_server_between_its_statements(
    postgres: Database, postgres_url: str
) -> None:
    with (
        postgres.read_transaction() as session,
        psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other,
    ):
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        state = "SELECT state FROM pg_stat_activity WHERE pid = %s"
        assert other.execute(state, (pid,)).fetchone() == ("idle",)
        add_circuit(postgres)
        assert session.scalars(select(OutboxCircuit.failures)).one() == 0


def test_the_databases_clock_is_the_time_since_1970_to_the_millisecond(database: Database) -> None:
    with database.read_transaction() as session:
        before = time.time()
        now = session.scalars(select(database.now)).one()
        after = time.time()
    assert before - 0.01 <= now <= after + 0.01


def test_the_clock_can_be_handed_in(timed_database: Database) -> None:
    with timed_database.read_transaction() as session:
        assert session.scalars(select(timed_database.now)).one() == 1_800_000_000.0


def test_subscribers_hear_once_of_a_commit_that_notifies_of_their_topic_and_of_no_other(database: Database) -> None:
    heard: list[Topic] = []
    for topic in Topic:
        database.subscribe(topic, partial(heard.append, topic))
    add_circuit(database)

    def notify_and_fail() -> None:
        with database.write_transaction() as session:
            session.notify(Topic.MESSAGES)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        notify_and_fail()
    assert heard == []
    with database.write_transaction() as session:
        session.notify(Topic.MESSAGES)
        session.notify(Topic.MESSAGES)
        assert heard == []
    assert heard == [Topic.MESSAGES]
    with database.write_transaction() as session:
        session.notify(Topic.RUNS)
    assert heard == [Topic.MESSAGES, Topic.RUNS]


def test_an_upsert_speaks_each_databases_dialect(database: Database) -> None:
    for _ in range(2):
        with database.write_transaction() as session:
            session.execute(
                upsert(session, OutboxCircuit)
                .values(endpoint="endpoint", state="closed", failures=0)
                .on_conflict_do_update(index_elements=["endpoint"], set_={"failures": OutboxCircuit.failures + 1})
            )
    assert failures(database) == 1


def test_the_revision_of_the_schema_can_be_asked_for(database: Database, tmp_path: Path) -> None:
    with database.read_transaction() as session:
        assert schema_revision(session)
    with (
        closing(Database(f"sqlite:///{tmp_path}/sub/folder/new.db", may_create=True)) as empty,
        empty.read_transaction() as session,
    ):
        assert schema_revision(session) is None


def test_a_risky_sqlite_is_warned_of_and_postgres_never(sqlite: Database, postgres: Database) -> None:
    assert bool(sqlite.warnings()) == (sqlite3.sqlite_version_info < SAFE_SQLITE)
    assert postgres.warnings() == []
