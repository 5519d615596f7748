"""SQLAlchemy engines for SQLite, and how a writer waits for those of other processes.

SQLite lets one transaction write at a time. Its busy handler sleeps for milliseconds, longer each time, and often finds
the next writer when it tries again: two processes that ingest photos lost a sixth of their time to it. So this module
retries more often, at intervals that grow with the time waited. The writers of one process share one connection and
queue on `app.database.writer_lock`.
"""

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import PoolProxiedConnection

from app.database.sqlite_file import DatabaseFile, TrackedConnection
from app.storage.file_systems import network_kind_of

SHORTEST_PAUSE_SECONDS = 0.0003
LONGEST_PAUSE_SECONDS = 0.01
PAUSE_DIVISOR = 20
"""A pause is the time waited so far divided by this: after 200 ms a writer retries every 10 ms."""


def reader(url: URL, file: DatabaseFile, busy_seconds: float) -> Engine:
    """Return the engine for read transactions, each of which reads one snapshot."""
    engine = create_engine(
        url,
        creator=partial(file.open, busy_seconds),
        pool_size=32,
        max_overflow=32,
        pool_timeout=busy_seconds,
        pool_use_lifo=True,  # the last connection used has the database's pages cached
    )
    _adapt(engine, file, lambda connection: connection.execute("BEGIN"))
    return engine


def writer(url: URL, file: DatabaseFile, busy_seconds: float, left: Callable[[], float]) -> Engine:
    """Return the engine for write transactions; each waits up to `left()` seconds for writers of other processes."""
    engine = create_engine(
        url,
        creator=partial(file.open, busy_seconds, "busy_timeout=0"),
        pool_timeout=busy_seconds,
        pool_use_lifo=True,
    )
    _adapt(engine, file, lambda connection: begin_writing(connection, left()))
    return engine


def location_warning(url: URL) -> str | None:
    """Return what is risky about the database's file system; None if nothing is."""
    folder = Path(url.database or "").absolute().parent
    kind = network_kind_of(folder)
    if kind is None:
        return None
    return (
        f"The SQLite database in {folder} is on a file system of the type {kind}: its write-ahead log needs memory "
        "shared between processes, which only a local disk provides for sure. Move it to one, or use PostgreSQL."
    )


def begin_writing(
    connection: sqlite3.Connection,
    busy_seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """BEGIN IMMEDIATE on a connection without a busy handler. Raises OperationalError after `busy_seconds`."""
    began = monotonic()
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            waited = monotonic() - began
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or waited >= busy_seconds:
                raise
            sleep(min(max(waited / PAUSE_DIVISOR, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))
        else:
            return


def _adapt(engine: Engine, file: DatabaseFile, begin: Callable[[sqlite3.Connection], object]) -> None:
    """Begin transactions with `begin`, and check the file after each begin and each commit.

    This replaces methods of the dialect, because any event listener slows every statement of the engine down by as much
    as SQLite spends on it.
    """
    commit_as_usual = engine.dialect.do_commit

    def do_begin(connection: PoolProxiedConnection) -> None:
        placed = _placed(connection.driver_connection)
        begin(placed)
        file.check(placed)

    def do_commit(connection: PoolProxiedConnection) -> None:
        commit_as_usual(connection)
        file.check_with_log(_placed(connection.driver_connection))

    engine.dialect.do_begin = do_begin  # type: ignore[assignment,method-assign]
    engine.dialect.do_commit = do_commit  # type: ignore[assignment,method-assign]


def _placed(connection: object) -> TrackedConnection:
    assert isinstance(connection, TrackedConnection)
    return connection
