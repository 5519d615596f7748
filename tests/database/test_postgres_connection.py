"""Connections to PostgreSQL: options of the URL, deadlines for a silent server, and refused encodings."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url, text

from app.database import Database
from app.database.postgres_connection import TimeLimits, settings_in
from app.errors import DatabaseUnfit, SettingsError, Unavailable
from app.outbox.watch import ChangeWatcher
from tests import fork_server
from tests.paths import ROOT
from tests.servers.silent_server import SilentServer

pytestmark = pytest.mark.slow


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def shown(database: Database, name: str) -> str:
    with database.read_transaction() as session:
        return str(session.execute(text(f"SHOW {name}")).scalar_one())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {}),
        ("-csearch_path=app", {"search_path": "app"}),
        ("-c search_path=app,public  -c lock_timeout=5s", {"search_path": "app,public", "lock_timeout": "5s"}),
        ("--search-path=app", {"search_path": "app"}),
        (r"-c search_path=my\ app -c a.b=c\\d", {"search_path": "my app", "a.b": r"c\d"}),
        ("-c work_mem=", {"work_mem": ""}),
    ],
)
def test_the_options_of_a_url_are_split_as_the_server_splits_them(options: str, expected: dict[str, str]) -> None:
    assert settings_in(options) == expected


@pytest.mark.parametrize("options", ["-c", "-c search_path", "-B 100", "search_path=app", "-c 1=2", "-"])
def test_options_that_are_no_settings_are_refused_by_name(options: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL: its options must be settings"):
        settings_in(options)


@given(st.text())
def test_any_options_are_either_settings_or_refused(options: str) -> None:
    with suppress(SettingsError):
        settings_in(options)


def test_the_options_of_a_url_are_kept_beside_ours(postgres_url: str) -> None:
    execute(postgres_url, "CREATE SCHEMA apart")
    url = make_url(postgres_url).update_query_dict({"options": "-c search_path=apart -c lock_timeout=7s"})
    with closing(Database(url.render_as_string(hide_password=False))) as database:
        assert shown(database, "search_path") == "apart"
        assert shown(database, "lock_timeout") == "7s"
        assert shown(database, "statement_timeout") == "4500ms"
        with database.read_transaction() as session:
            assert session.execute(text("SELECT current_schema()")).scalar_one() == "apart"


def test_no_option_makes_a_commit_that_does_not_wait_for_the_disk(postgres_url: str) -> None:
    url = make_url(postgres_url).update_query_dict({"options": "-c synchronous_commit=off"})
    with closing(Database(url.render_as_string(hide_password=False))) as database:
        assert shown(database, "synchronous_commit") == "on"


def test_statements_that_take_long_by_their_nature_are_given_the_time(postgres_url: str) -> None:
    limits = TimeLimits(lock=1, statement=0.2, idle=10, exchange=1)
    slow = text("SELECT pg_sleep(0.5)")
    with closing(Database(postgres_url, limits=limits)) as database:
        with pytest.raises(Unavailable), database.read_transaction() as session:
            session.execute(slow)
        with database.read_transaction(statement_seconds=20) as session:
            session.execute(slow)
        with database.write_transaction(statement_seconds=20) as session:
            session.execute(slow)
        with pytest.raises(Unavailable), database.read_transaction() as session:
            session.execute(slow)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_that_is_not_utf_8_is_refused_in_one_line(encoding: str, postgres_url: str) -> None:
    name = f"other_{os.getpid()}_{encoding.lower()}"
    words = f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    execute(postgres_url, words)
    try:
        url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
        with closing(Database(url)) as database:
            with pytest.raises(DatabaseUnfit, match=f"'{name}' has the encoding {encoding}") as refused:
                database.check()
            assert str(refused.value).isprintable()
            with pytest.raises(DatabaseUnfit), database.read_transaction() as session:
                session.execute(text("SELECT 1"))
        ended = fork_server.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": url},
            timeout=60,
        )
        assert ended.returncode != 0
        [line] = (ended.stdout + ended.stderr).splitlines()
        assert f"has the encoding {encoding}" in line
    finally:
        execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def silent(postgres_url: str) -> Iterator[SilentServer]:
    server = SilentServer(postgres_url)
    yield server
    server.stop()


def test_a_server_that_falls_silent_is_given_up_and_used_again_once_it_speaks(silent: SilentServer) -> None:
    with closing(Database(silent.url, busy_seconds=0.2)) as database:
        for hold in (database.read_transaction, database.write_transaction):
            with hold() as session:
                assert session.execute(text("SELECT 1")).scalar_one() == 1
            silent.hush()
            began = time.monotonic()
            with pytest.raises(Unavailable), hold() as session:
                session.execute(text("SELECT 1"))
            assert time.monotonic() - began < 10
            silent.speak()
            with hold() as session:
                assert session.execute(text("SELECT 1")).scalar_one() == 1


def test_a_commit_that_nobody_answers_is_given_up_too(silent: SilentServer) -> None:
    def commit() -> None:
        with database.write_transaction() as session:
            session.execute(text("INSERT INTO counter_shard (name, shard, value) VALUES ('x', 0, 1)"))
            silent.hush()

    with closing(Database(silent.url, busy_seconds=0.2)) as database:
        with pytest.raises(Unavailable):
            commit()
        silent.speak()


def test_a_watcher_asks_a_server_that_says_nothing_whether_it_is_still_there(silent: SilentServer) -> None:
    looked = threading.Event()
    with closing(Database(silent.url, busy_seconds=0.2)) as database:
        watcher = ChangeWatcher(database, looked.set, silent_seconds=0.2)
        watcher.start()
        try:
            assert looked.wait(20)
            looked.clear()
            silent.hush()
            time.sleep(3)
            silent.speak()
            assert looked.wait(20), "it has another connection, and may have missed something"
        finally:
            watcher.stop()


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """A read-only server, as a standby is."""
    name = make_url(url).database
    others = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
    execute(
        url,
        f"ALTER DATABASE {name} SET default_transaction_read_only = on",
        f"{others} AND pid <> pg_backend_pid()",
    )
    yield
    writing = "SET default_transaction_read_only = off"
    execute(url, writing, f"ALTER DATABASE {name} RESET default_transaction_read_only")


def write(database: Database) -> int:
    """Write something; return the connection that was used."""
    with database.write_transaction() as session:
        session.execute(text("INSERT INTO counter_shard (name, shard, value) VALUES ('x', 0, 1)"))
        session.execute(text("DELETE FROM counter_shard WHERE name = 'x'"))
        return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_server_that_does_not_write_is_unavailable_and_the_pool_lets_go_of_it(postgres_url: str) -> None:
    def backend() -> int:
        with database.read_transaction() as session:
            return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())

    with closing(Database(postgres_url)) as database:
        write(database)
        with read_only(postgres_url):
            before = backend()
            with pytest.raises(Unavailable, match="read-only"):
                write(database)
            assert backend() != before
            with pytest.raises(Unavailable):
                write(database)
        write(database)
