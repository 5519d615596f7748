"""Connections to PostgreSQL: their settings, and when one of the pool is asked whether it still works."""

from select import POLLIN, poll

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection

_VANISHED_HOST = {
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""How libpq notices a server whose host has gone without a word: within 20 s, not the kernel's quarter of an hour."""


def make(url: URL, busy_seconds: float) -> Engine:
    """Its transactions read and write; none waits for a lock longer than `busy_seconds`."""
    milliseconds = int(busy_seconds * 1000)
    settings = {
        "synchronous_commit": "on",
        "lock_timeout": milliseconds,
        "statement_timeout": 3 * milliseconds,
        "idle_in_transaction_session_timeout": 3 * milliseconds,
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    engine = create_engine(
        url,
        connect_args={"options": options, "connect_timeout": 10, **_VANISHED_HOST},
        pool_pre_ping=True,
        pool_use_lifo=True,  # the last one used knows its statements, and has its server's caches warm
        pool_size=16,
        max_overflow=16,
        pool_timeout=busy_seconds,
    )
    _ping_when_in_doubt(engine)
    return engine


def _ping_when_in_doubt(engine: Engine) -> None:
    """Ask the server whether a pooled connection still works only where that is not plain without a journey to it.

    A server that ends a connection says so, and one whose host has vanished is noticed by the kernel: either way there
    is something to be read from the socket, where an idle connection has nothing.
    """
    ask = engine.dialect.do_ping

    def ping(dbapi_connection: DBAPIConnection) -> bool:
        return not _has_something_to_say(dbapi_connection.fileno()) or ask(dbapi_connection)

    engine.dialect.do_ping = ping  # type: ignore[method-assign]


def _has_something_to_say(fd: int) -> bool:
    look = poll()
    look.register(fd, POLLIN)
    return bool(look.poll(0))
