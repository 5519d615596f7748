"""A connection to PostgreSQL as this service needs it, whatever its role, database, server or pooler would have.

A pooler refuses what it does not know of a connection's start, so nothing is asked for there but the encoding, which
every pooler knows. What must hold is said in SQL: once, where the server's session is ours for as long as the
connection; in the words that begin each transaction, where a pooler gives each of them another session.

No exchange goes on for ever: a server that is there and silent (stopped, on a hung disk, behind a balancer that forgot
us) is given up after `TimeLimits.exchange`, and the connection with it.
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
"""How long each host of the URL has to answer."""

IDLE_SECONDS = 3.0
"""How long a process of ours may stand still within a transaction, while others wait for its locks."""

_VANISHED_HOST = {
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""How libpq notices a server whose host has gone without a word while nothing is asked of it: within 20 s."""

_PREPARE_AFTER = 5
"""Executions after which psycopg has the server prepare a statement: its own default."""

_TOKEN = re.compile(r"(?:\\.|[^\\\s])+", re.DOTALL)
_ASSIGNMENT = re.compile(r"(?:-c|--)([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds that the server spends on us before it gives up: waiting for a lock, on a statement, and for our next
    word within a transaction, whose locks keep others waiting; and those that we wait for an answer of the server.

    None: for ever.
    """

    lock: float | None
    statement: float | None
    idle: float | None
    exchange: float | None

    @classmethod
    def within(cls, busy_seconds: float) -> Self:
        """What fits a service in which nobody waits for a lock longer than `busy_seconds`."""
        return cls(busy_seconds, 3 * busy_seconds, IDLE_SECONDS, 3 * busy_seconds + 1)


PATIENT = TimeLimits(lock=20, statement=None, idle=60, exchange=None)
"""For migrations, whose statements may take as long as the tables are large."""


class PostgresConnection(psycopg.Connection[tuple[Any, ...]]):
    """One connection. Its transactions begin by `begin`; a statement outside one is a transaction of its own."""

    begin_statement = "BEGIN"
    exchange_seconds: float | None = None
    notify_statement: str | None = None
    """A statement that the next commit makes with it, in one exchange."""

    def begin(self) -> None:
        """Begin a transaction that reads what is committed and holds to the limits."""
        self.notify_statement = None
        self.execute(self.begin_statement.encode(), prepare=False)

    def commit(self) -> None:
        """Commit, with the notice if there is one."""
        if self.notify_statement is None:
            super().commit()
        else:
            self.execute(f"{self.notify_statement}; COMMIT".encode(), prepare=False)

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Psycopg's, which everything that asks the server goes through; closes this connection if no answer comes."""
        try:
            return super().wait(gen, interval, self.exchange_seconds if timeout is None else timeout)
        except _WaitTimeout:
            if timeout is not None:  # the caller's own, for which silence is an answer
                raise
            self.close()
            raise OperationalError(f"no answer within {self.exchange_seconds:g} s") from None


class Connector:
    """Makes connections to the hosts of a URL. `own_sessions` is False behind a pooler that gives each transaction
    another session of the server: nothing is prepared or kept in one then."""

    def __init__(self, url: str | URL, limits: TimeLimits, *, own_sessions: bool = True) -> None:
        _, parameters = PGDialect_psycopg(dbapi=psycopg).create_connect_args(make_url(url))  # type: ignore[no-untyped-call]
        options = parameters.pop("options", ())
        asked_for = settings_in(options if isinstance(options, str) else " ".join(options))
        self._parameters = {"connect_timeout": CONNECT_SECONDS, **_VANISHED_HOST} | parameters
        self._settings = _settings(limits) | asked_for | {"synchronous_commit": "on"}
        self._limits = limits
        self.own_sessions = own_sessions

    def connect(self) -> PostgresConnection:
        """A new connection, ready for use. Raises psycopg's OperationalError, or DatabaseUnfit."""
        connection = PostgresConnection.connect(
            **self._parameters,
            client_encoding="utf8",
            autocommit=True,  # so that transactions begin in our words
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
    """The settings that a URL's `options` ask for, split as the server splits them.

    Raises SettingsError for options that are no settings.
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
    """What must hold whatever a role, a database or a server has set for everybody."""
    return {
        "search_path": '"$user", public',
        "lock_timeout": _milliseconds(limits.lock),
        "statement_timeout": _milliseconds(limits.statement),
        "idle_in_transaction_session_timeout": _milliseconds(limits.idle),
        "extra_float_digits": "1",  # a time that is read must be the one that was written
    }


def _milliseconds(seconds: float | None) -> str:
    return "0" if seconds is None else str(round(seconds * 1000))


def _set(settings: Mapping[str, str], connection: PostgresConnection, *, local: bool) -> str:
    """Statements that set these, for the transaction or for the session. A search path is a list, which SET would take
    for one name where it is quoted."""
    path = sql.Literal(settings["search_path"]).as_string(connection)
    words = [
        f"SET {'LOCAL' if local else 'SESSION'} {name} = {sql.Literal(value).as_string(connection)}"
        for name, value in settings.items()
        if name != "search_path"
    ]
    return "; ".join([*words, f"SELECT set_config('search_path', {path}, {local})"])


def _check_encoding(connection: PostgresConnection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding is None:  # a pooler may keep it to itself
        (encoding,) = connection.execute("SHOW server_encoding").fetchone() or (None,)
    if encoding != "UTF8":
        raise DatabaseUnfit(
            f"The database {connection.info.dbname!r} is encoded in {encoding}, which cannot store every name and every"
            " answer: make one with ENCODING 'UTF8' TEMPLATE template0, and migrate that."
        )
