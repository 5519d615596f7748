"""Engines for PostgreSQL: how connections are pooled, when one is let go, and how transactions begin."""

from select import POLLIN, poll

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, DBAPIModule
from sqlalchemy.pool import PoolProxiedConnection

from app.database import postgres_failover
from app.database.error_translation import READ_ONLY, sqlstate
from app.database.postgres_connection import Connector, PostgresConnection

POOL_SECONDS = 5.0
"""How long a thread waits for one of the pool's connections."""


def make(url: URL, connector: Connector, pool_seconds: float = POOL_SECONDS) -> tuple[Engine, Engine]:
    """An engine for transactions, and one whose every statement is a transaction of its own; both share their pool.

    Behind a pooler that gives each transaction another session they are the same: a statement needs its transaction
    there, because what must hold is said with it.
    """
    transactions = create_engine(
        url,
        creator=lambda: connect(connector),
        pool_pre_ping=True,
        pool_use_lifo=True,  # the last one used knows its statements, and has its server's caches warm
        pool_size=16,
        max_overflow=16,
        pool_timeout=pool_seconds,
        use_native_hstore=False,  # it would be asked for at each start
    )
    _adapt(transactions)
    transactions.dialect.do_begin = _begin  # type: ignore[assignment,method-assign]
    if not connector.own_sessions:
        return transactions, transactions
    single = create_engine(url, pool=transactions.pool, use_native_hstore=False)
    _adapt(single)
    return transactions, single


def connect(connector: Connector) -> PostgresConnection:
    """A new connection, to the server that the database was last used with, or in a new epoch."""
    connection = connector.connect()
    try:
        postgres_failover.detect_failover(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _begin(connection: PoolProxiedConnection) -> None:
    driver = connection.driver_connection
    assert isinstance(driver, PostgresConnection)
    driver.begin()


def _adapt(engine: Engine) -> None:
    """Let go of connections to a server that does not write, and ask whether a pooled one still works only where that
    is not plain without a journey to the server.

    A server that ends a connection says so, and one whose host has vanished is noticed by the kernel: either way there
    is something to be read from the socket, where an idle connection has nothing.
    """
    ask, is_broken = engine.dialect.do_ping, engine.dialect.is_disconnect

    def ping(dbapi_connection: DBAPIConnection) -> bool:
        return not _has_something_to_say(dbapi_connection.fileno()) or ask(dbapi_connection)

    def is_disconnect(
        error: DBAPIModule.Error, connection: PoolProxiedConnection | DBAPIConnection | None, cursor: DBAPICursor | None
    ) -> bool:
        return sqlstate(error) == READ_ONLY or is_broken(error, connection, cursor)

    engine.dialect.do_ping = ping  # type: ignore[method-assign]
    engine.dialect.is_disconnect = is_disconnect  # type: ignore[assignment,method-assign]


def _has_something_to_say(fd: int) -> bool:
    look = poll()
    look.register(fd, POLLIN)
    return bool(look.poll(0))
