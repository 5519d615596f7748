"""What `Database` does differently on PostgreSQL: time limits, notifications, poolers and failovers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from app.database import postgres_engine
from app.database.pooler import check_pooler
from app.database.postgres_connection import Connector, PostgresConnection, TimeLimits
from app.database.write_probe import write_uncommitted

PG_CHANNEL = "detections_outbox"
NOTIFY_STATEMENT = f"NOTIFY {PG_CHANNEL}"
"""Wakes other processes at the commit, whatever the topics."""


class PostgresBackend:
    """The engines of a PostgreSQL database, which share a pool, with the same methods as `SqliteBackend`.

    `limits` are the server's time limits. `pooler` is "transaction" behind a pooler that gives each transaction another
    session; `listen_url` then leads to the server itself.
    """

    def __init__(
        self,
        url: URL,
        busy_seconds: float,
        *,
        limits: TimeLimits | None = None,
        pooler: Literal["none", "transaction"] = "none",
        listen_url: str | None = None,
    ) -> None:
        self._limits = limits or TimeLimits.within(busy_seconds)
        self._connector = Connector(url, self._limits, own_sessions=pooler == "none")
        self._listening = Connector(listen_url, self._limits) if listen_url else None
        self.writer, self.reader = postgres_engine.make(url, self._connector, busy_seconds)

    def reader_for(self, statement_seconds: float | None) -> Engine:
        """Return the engine for a read transaction; a limit for its statements needs a transaction on the server."""
        return self.reader if statement_seconds is None else self.writer

    @contextmanager
    def limit_statements(self, session: Session, seconds: float | None) -> Iterator[None]:
        """Let the statements of a session's transaction take `seconds`; None keeps the usual limit."""
        if seconds is None:
            yield
            return
        session.connection().exec_driver_sql(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
        driver = _driver(session.connection())
        driver.exchange_seconds = seconds + 1
        try:
            yield
        finally:
            driver.exchange_seconds = self._limits.exchange

    @contextmanager
    def lock_writer(self, seconds: float, *, since: float | None = None) -> Iterator[None]:
        """Do nothing: writers lock rows."""
        yield

    def notify_others(self, connection: Connection) -> None:
        """Notify the listening processes when the connection's transaction commits."""
        _driver(connection).notify_statement = NOTIFY_STATEMENT

    def commit_nothing(self, session: Session) -> None:
        """Write a record to the server's log, so that the commit writes to the disk."""
        write_uncommitted(session.connection())

    def has_disk_space(self) -> bool:
        """Return True: the server reports a full disk itself."""
        return True

    def check_connection(self, connection: object) -> None:
        """Do nothing: a server has no file that could be replaced."""

    def check_place(self) -> None:
        """Do nothing: a server has no file that could be replaced."""

    def truncate_log(self) -> bool:
        """Return False: the server maintains its log."""
        return False

    def sizes(self, session: Session) -> dict[str, int]:
        """Return the bytes of the "database"."""
        return {"database": session.execute(text("SELECT pg_database_size(current_database())")).scalar_one()}

    def warnings(self) -> list[str]:
        """Return no risks."""
        return []

    def check(self) -> str | None:
        """Return a line about a harmless pooler; raise DatabaseUnfit about one that needs other settings."""
        connectors = (
            (self._connector, "DATABASE_URL", "set DATABASE_POOLER=transaction"),
            (self._listening, "DATABASE_LISTEN_URL", "name the server itself"),
        )
        try:
            notes = [check_pooler(connector, *words) for connector, *words in connectors if connector]
        except psycopg.Error:  # an unreachable server may come up later
            return None
        return " ".join(filter(None, notes)) or None

    def ensure_exists(self) -> None:
        """Do nothing: `check` and the first connection report a missing database."""

    def unreachable_reason(self) -> str | None:
        """Return why no connection can be made now, in the words of server or system; None if one can."""
        try:
            self._connector.connect().close()
        except psycopg.Error as error:
            return str(error)
        return None

    def record_server(self) -> None:
        """Record with which server the database is used (`app.database.postgres_failover`)."""
        postgres_engine.connect(self._connector).close()

    def listen(self) -> PostgresConnection | None:
        """Return a new connection that receives notifications; None behind a transaction pooler."""
        connector = self._listening or self._connector
        if not connector.own_sessions:
            return None
        connection = connector.connect()
        connection.execute(f"LISTEN {PG_CHANNEL}".encode())
        return connection

    def close(self) -> None:
        """Do nothing: the pool is disposed by `Database`."""


def _driver(connection: Connection) -> PostgresConnection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, PostgresConnection)
    return driver
