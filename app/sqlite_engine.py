"""Connections to SQLite, and how a writer waits for its turn among processes.

SQLite lets one transaction write at a time. Its own waiting sleeps for milliseconds, longer each time, and finds the
next writer there when it looks again: two processes that take photos in lost a sixth of their time to it. So a writer
of ours looks often, and less often the longer it has waited. The writers of one process queue before that, see
`app.db`: one connection is enough for them.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from app.file_systems import network_kind_of
from app.private_files import make_private

SHORTEST_PAUSE = 0.0003
LONGEST_PAUSE = 0.01
MAX_LOG_BYTES = 64 << 20
"""A log that grew beyond this, behind a long reader, is cut to it when SQLite starts the log anew."""
LOOKS = 20
"""A pause is this part of what was waited already: who has waited for 200 ms looks every 10."""

_LIMIT_LOG = f"journal_size_limit={MAX_LOG_BYTES}"


def reader(url: URL, busy_seconds: float) -> Engine:
    """Its transactions read one state of the database."""
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        connect_args={"isolation_level": None, "timeout": busy_seconds},
        pool_size=32,
        max_overflow=32,
        pool_timeout=busy_seconds,
        pool_use_lifo=True,  # the one used last still has the database's pages
    )
    _prepare(engine)
    _begin_with(engine, lambda connection: connection.execute("BEGIN"))
    return engine


def writer(url: URL, busy_seconds: float) -> Engine:
    """Its transactions write; each waits `busy_seconds` at most for those of other processes."""
    arguments = {"isolation_level": None, "timeout": busy_seconds}
    engine = create_engine(url, connect_args=arguments, pool_timeout=busy_seconds, pool_use_lifo=True)
    _prepare(engine, "busy_timeout=0")
    _begin_with(engine, lambda connection: begin_writing(connection, busy_seconds))
    return engine


def place_warning(url: URL) -> str | None:
    """Say what is risky about where the database lies; None where nothing is."""
    folder = Path(url.database or "").absolute().parent
    kind = network_kind_of(folder)
    if kind is None:
        return None
    return (
        f"The SQLite database in {folder} lies on a file system of the type {kind}: its write-ahead log needs memory "
        "that all processes share, which only a local disk is sure to give. Move it to one, or use PostgreSQL."
    )


def begin_writing(
    connection: sqlite3.Connection,
    busy_seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """BEGIN IMMEDIATE on a connection that does not wait by itself. Raises OperationalError where no turn comes."""
    began = monotonic()
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            waited = monotonic() - began
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or waited >= busy_seconds:
                raise
            sleep(min(max(waited / LOOKS, SHORTEST_PAUSE), LONGEST_PAUSE))
        else:
            return


def _prepare(engine: Engine, *more: str) -> None:
    @event.listens_for(engine.pool, "connect")
    def _recipe(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        # A new file is still empty now, and SQLite gives its log the rights that the database has.
        for suffix in ("", "-wal", "-shm"):
            make_private(Path(f"{engine.url.database}{suffix}"))
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", _LIMIT_LOG, *more):
            connection.execute(f"PRAGMA {pragma}")


def _begin_with(engine: Engine, begin: Callable[[sqlite3.Connection], object]) -> None:
    """Begin transactions so. A listener to the engine's "begin" would cost every statement of it as much as SQLite
    spends on one: SQLAlchemy asks for listeners at each step once an engine has any."""

    def do_begin(connection: PoolProxiedConnection) -> None:
        begin(connection.driver_connection)  # type: ignore[arg-type]

    engine.dialect.do_begin = do_begin  # type: ignore[assignment,method-assign]
