"""Connections to PostgreSQL with the settings that this service needs, whatever role, database or server set.

A pooler refuses startup parameters that it does not know, so only the encoding is one. All other settings are made in
SQL: once for a connection with a session of its own, and with the BEGIN of each transaction behind a pooler.

Every exchange with the server has a deadline: if a server stays silent (stopped, on a hung disk, behind a balancer that
dropped the connection), the connection is closed after `TimeLimits.exchange`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.errors import OperationalError, _WaitTimeout
from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL

from app.errors import DatabaseUnfit, SettingsError

RV = TypeVar("RV")

CONNECT_SECONDS = 3
"""Time limit for connecting to each host of the URL."""

IDLE_SECONDS = 3.0
"""How long a transaction may be idle before the server ends it, because others may wait for its locks."""

_VANISHED_HOST = {
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""libpq notices within 20 s that the host of an idle connection has vanished."""

_PREPARE_AFTER = 5
"""Executions after which psycopg prepares a statement; its default."""

_TOKEN = re.compile(r"(?:\\.|[^\\\s])+", re.DOTALL)
_ASSIGNMENT = re.compile(r"(?:-c|--)([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Time limits in seconds; None for no limit.

    The server limits the wait for a `lock`, a `statement`, and the `idle` time within a transaction. The client limits
    its wait for an answer: an `exchange`.
    """

    lock: float | None
    statement: float | None
    idle: float | None
    exchange: float | None

    @classmethod
    def within(cls, busy_seconds: float) -> Self:
        """Return limits for a service in which nobody waits for a lock longer than `busy_seconds`."""
        return cls(busy_seconds, 3 * busy_seconds, IDLE_SECONDS, 3 * busy_seconds + 1)


PATIENT = TimeLimits(lock=20, statement=None, idle=60, exchange=None)
"""For migrations, whose statements take longer the larger the tables are."""


class PostgresConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection in autocommit mode; `begin` begins a transaction."""

    begin_statement = "BEGIN"
    exchange_seconds: float | None = None
    notify_statement: str | None = None
    """A statement that the next commit sends together with COMMIT."""

    def begin(self) -> None:
        """Begin a READ COMMITTED transaction with the time limits."""
        self.notify_statement = None
        self.execute(self.begin_statement.encode(), prepare=False)

    def commit(self) -> None:
        """Commit, together with `notify_statement` if it is set."""
        if self.notify_statement is None:
            super().commit()
        else:
            self.execute(f"{self.notify_statement}; COMMIT".encode(), prepare=False)

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for the server, as every call of psycopg does; close the connection if no answer comes in time."""
        try:
            return super().wait(gen, interval, self.exchange_seconds if timeout is None else timeout)
        except _WaitTimeout:
            if timeout is not None:  # the caller's own timeout, as in `notifies`
                raise
            self.close()
            raise OperationalError(f"the server did not answer within {self.exchange_seconds:g} s") from None


class Connector:
    """Makes connections to the hosts of a URL.

    `own_sessions` is False behind a pooler that gives each transaction another session of the server; then statements
    are not prepared.
    """

    def __init__(self, url: str | URL, limits: TimeLimits, *, own_sessions: bool = True) -> None:
        _, parameters = PGDialect_psycopg(dbapi=psycopg).create_connect_args(make_url(url))  # type: ignore[no-untyped-call]
        options = parameters.pop("options", ())
        asked_for = settings_in(options if isinstance(options, str) else " ".join(options))
        self._parameters = {"connect_timeout": CONNECT_SECONDS, **_VANISHED_HOST} | parameters
        self._settings = _settings(limits) | asked_for | {"synchronous_commit": "on"}
        self._limits = limits
        self.own_sessions = own_sessions

    def connect(self) -> PostgresConnection:
        """Return a new connection. Raises psycopg's OperationalError, or DatabaseUnfit unless the encoding is UTF8."""
        connection = PostgresConnection.connect(
            **self._parameters,
            client_encoding="utf8",
            autocommit=True,  # transactions begin with `begin_statement`
            prepare_threshold=_PREPARE_AFTER if self.own_sessions else None,
        )
        try:
            connection.exchange_seconds = self._limits.exchange
            _check_encoding(connection)
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: PostgresConnection) -> None:
        version = connection.info.server_version
        settings = self._settings | ({"transaction_timeout": "0"} if version >= 170000 else {})
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
        if self.own_sessions:
            connection.begin_statement = begin
            settings |= {"default_transaction_isolation": "read committed"}
            settings |= {"idle_session_timeout": "0"} if version >= 140000 else {}
            connection.execute(_set(settings, connection, local=False).encode())
        else:
            connection.begin_statement = f"{begin}; {_set(settings, connection, local=True)}"


def settings_in(options: str) -> dict[str, str]:
    """Return the settings in a URL's `options`, split as the server splits them.

    Raises SettingsError for options that are not settings.
    """
    tokens = [re.sub(r"\\(.)", r"\1", token, flags=re.DOTALL) for token in _TOKEN.findall(options)]
    found, words = {}, iter(tokens)
    for word in words:
        assignment = _ASSIGNMENT.fullmatch(word + next(words, "") if word == "-c" else word)
        if assignment is None:
            raise SettingsError(
                f"DATABASE_URL: its options must be settings such as -csearch_path=detections, not {word!r}."
            )
        found[assignment[1].replace("-", "_")] = assignment[2]
    return found


def _settings(limits: TimeLimits) -> dict[str, str]:
    """Return the settings that override those of role, database and server."""
    return {
        "search_path": '"$user", public',
        "lock_timeout": _milliseconds(limits.lock),
        "statement_timeout": _milliseconds(limits.statement),
        "idle_in_transaction_session_timeout": _milliseconds(limits.idle),
        "extra_float_digits": "1",  # so that a float is read exactly as it was written
    }


def _milliseconds(seconds: float | None) -> str:
    return "0" if seconds is None else str(round(seconds * 1000))


def _set(settings: Mapping[str, str], connection: PostgresConnection, *, local: bool) -> str:
    """Return statements that set these settings, for the transaction (`local`) or the session.

    A search path is a list, and SET would take a quoted list for a single name; set_config does not.
    """
    path = sql.Literal(settings["search_path"]).as_string(connection)
    words = [
        f"SET {'LOCAL' if local else 'SESSION'} {name} = {sql.Literal(value).as_string(connection)}"
        for name, value in settings.items()
        if name != "search_path"
    ]
    return "; ".join([*words, f"SELECT set_config('search_path', {path}, {local})"])


def _check_encoding(connection: PostgresConnection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding is None:  # some poolers do not pass it on
        (encoding,) = connection.execute("SHOW server_encoding").fetchone() or (None,)
    if encoding != "UTF8":
        raise DatabaseUnfit(
            f"The database {connection.info.dbname!r} has the encoding {encoding}, which cannot store every text: "
            "create one with ENCODING 'UTF8' TEMPLATE template0, and migrate that."
        )
