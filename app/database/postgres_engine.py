"""SQLAlchemy engines for PostgreSQL: pooling, pings, and how transactions begin."""

from select import POLLIN, poll

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, DBAPIModule
from sqlalchemy.pool import PoolProxiedConnection

from app.database import postgres_failover
from app.database.error_translation import READ_ONLY, sqlstate
from app.database.postgres_connection import Connector, PostgresConnection

POOL_SECONDS = 5.0
"""How long a thread waits for a connection of the pool."""


def make(url: URL, connector: Connector, pool_seconds: float = POOL_SECONDS) -> tuple[Engine, Engine]:
    """Return an engine for transactions and one in autocommit mode, which share a pool.

    Behind a transaction pooler both are the same engine, because the settings are part of each transaction's BEGIN.
    """
    transactions = create_engine(
        url,
        creator=lambda: connect(connector),
        pool_pre_ping=True,
        pool_use_lifo=True,  # the last connection used has its statements prepared and the server's caches warm
        pool_size=16,
        max_overflow=16,
        pool_timeout=pool_seconds,
        use_native_hstore=False,  # saves a query for each new connection
    )
    _adapt(transactions)
    transactions.dialect.do_begin = _begin  # type: ignore[assignment,method-assign]
    if not connector.own_sessions:
        return transactions, transactions
    single = create_engine(url, pool=transactions.pool, use_native_hstore=False)
    _adapt(single)
    return transactions, single


def connect(connector: Connector) -> PostgresConnection:
    """Return a new connection, after beginning a new epoch if the server is another one than before."""
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
    """Drop connections to a read-only server, and ping a pooled connection only if its socket has something to read.

    A server that ends a connection sends a message, and the kernel reports a vanished host; an idle connection has
    nothing to read.
    """
    ask, is_broken = engine.dialect.do_ping, engine.dialect.is_disconnect

    def ping(dbapi_connection: DBAPIConnection) -> bool:
        return not _is_readable(dbapi_connection.fileno()) or ask(dbapi_connection)

    def is_disconnect(
        error: DBAPIModule.Error, connection: PoolProxiedConnection | DBAPIConnection | None, cursor: DBAPICursor | None
    ) -> bool:
        return sqlstate(error) == READ_ONLY or is_broken(error, connection, cursor)

    engine.dialect.do_ping = ping  # type: ignore[method-assign]
    engine.dialect.is_disconnect = is_disconnect  # type: ignore[assignment,method-assign]


def _is_readable(fd: int) -> bool:
    poller = poll()
    poller.register(fd, POLLIN)
    return bool(poller.poll(0))
