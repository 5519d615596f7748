"""Connections to SQLite, and how a writer waits for its turn among processes.

SQLite lets one transaction write at a time. Its own waiting sleeps for milliseconds, longer each time, and finds the
next writer there when it looks again: two processes that take photos in lost a sixth of their time to it. So a writer
of ours looks often, and less often the longer it has waited. The writers of one process queue before that, see
`app.database.engine`: one connection is enough for them.
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
"""A pause is this part of what was waited already: who has waited for 200 ms looks every 10."""


def reader(url: URL, file: DatabaseFile, busy_seconds: float) -> Engine:
    """Its transactions read one state of the database."""
    engine = create_engine(
        url,
        creator=partial(file.open, busy_seconds),
        pool_size=32,
        max_overflow=32,
        pool_timeout=busy_seconds,
        pool_use_lifo=True,  # the one used last still has the database's pages
    )
    _adapt(engine, file, lambda connection: connection.execute("BEGIN"))
    return engine


def writer(url: URL, file: DatabaseFile, busy_seconds: float, left: Callable[[], float]) -> Engine:
    """Its transactions write; each waits as many seconds for those of other processes as are `left` when it begins."""
    engine = create_engine(
        url,
        creator=partial(file.open, busy_seconds, "busy_timeout=0"),
        pool_timeout=busy_seconds,
        pool_use_lifo=True,
    )
    _adapt(engine, file, lambda connection: begin_writing(connection, left()))
    return engine


def location_warning(url: URL) -> str | None:
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
            sleep(min(max(waited / PAUSE_DIVISOR, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))
        else:
            return


def _adapt(engine: Engine, file: DatabaseFile, begin: Callable[[sqlite3.Connection], object]) -> None:
    """Begin transactions so, and have the file looked at when one has begun and after its commit.

    A listener to the engine's "begin" would cost every statement of it as much as SQLite spends on one: SQLAlchemy asks
    for listeners at each step once an engine has any.
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
