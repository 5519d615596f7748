"""The database and its sessions: the only ways to open a transaction, on either kind of engine.

`reading()`, `writing()` and `recording()` are called in the named places only (see docs and tests); everything else is
handed a session, or a connection where it adds messages. On SQLite a writing transaction is BEGIN IMMEDIATE, because a
deferred one that turns into a writer fails at once when another has written meanwhile, and the writers of one process
queue on a lock of ours; how they wait for those of other processes is `app.sqlite_engine`'s.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from enum import Enum
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    MetaData,
    inspect,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from app import postgres_engine, sqlite_engine
from app.direct import Direct, Row
from app.errors import StorageFailed, StorageFull, Unavailable

BUSY_SECONDS = 20.0
"""How long a transaction waits for its turn before the caller is told to come back."""

SAFE_SQLITE = (3, 51, 3)
PG_CHANNEL = "detections_outbox"
NOTIFICATION: ColumnElement[None] = literal_column(f"pg_notify('{PG_CHANNEL}', '')")
"""Wakes other processes at the commit of the statement that selects it; PostgreSQL sends equal ones only once."""

_ANNOUNCED = "announced"
_POSTGRES_BUSY = ("55P03", "57014", "40001", "40P01")  # lock and statement timeouts, serialization, deadlock
_POSTGRES_FULL = ("53100",)
_SQLITE_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)  # the second: no room for the WAL's index


class Base(DeclarativeBase):
    """Every table's base; constraints get predictable names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class database_now(GenericFunction[float]):  # noqa: N801 (named as the SQL function it stands for)
    """The database's clock, in seconds since 1970 UTC: the one clock that all processes and hosts share."""

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(_element: database_now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"  # unixepoch('subsec') is NULL before 3.42


@compiles(database_now, "postgresql")
def _postgres_now(_element: database_now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


class whole(GenericFunction[int]):  # noqa: N801 (named as the SQL functions are)
    """The whole part of a number that is not negative."""

    type = BigInteger()
    inherit_cache = True


@compiles(whole, "sqlite")
def _sqlite_whole(element: whole, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS INTEGER)"  # floor() is not in every build


@compiles(whole, "postgresql")
def _postgres_whole(element: whole, compiler: SQLCompiler, **options: Any) -> str:
    return f"floor({compiler.process(element.clauses, **options)})::bigint"  # a cast alone would round


class News(Enum):
    """What a transaction adds for others to work on."""

    MESSAGES = "messages"
    RUNS = "runs"


class Database:
    """One process's way to the database; to be made after fork, and closed at the end.

    Writing transactions are the engine `writer`'s, which on PostgreSQL is `engine` itself.
    `now` is an SQL expression for the time in seconds since 1970; tests hand in another.
    """

    def __init__(
        self, url: str, *, now: ColumnElement[float] | None = None, busy_seconds: float = BUSY_SECONDS
    ) -> None:
        self.url = make_url(url)
        self.now: ColumnElement[float] = database_now() if now is None else now
        self.busy_seconds = busy_seconds
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = sqlite_engine.reader(self.url, busy_seconds)
            self.writer = sqlite_engine.writer(self.url, busy_seconds)
        else:
            self.engine = self.writer = postgres_engine.make(self.url, busy_seconds)
        # One statement is a transaction of its own on PostgreSQL: two journeys to the server fewer for each look.
        self._looker = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._read = sessionmaker(self.engine, autoflush=False, expire_on_commit=False)
        self._look = sessionmaker(self._looker, autoflush=False, expire_on_commit=False)
        self._write = sessionmaker(self.writer, autoflush=False, expire_on_commit=False)
        self._writer_turn = threading.Lock()
        self._listeners: dict[News, list[Callable[[], None]]] = {news: [] for news in News}

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session whose reads see one state of the database; nothing it does is kept."""
        with _judged(), self._read() as session:
            yield session

    @contextmanager
    def looking(self) -> Iterator[Session]:
        """A session each of whose statements looks by itself, at what does not change between them: for the hot path.

        On PostgreSQL it has no transaction to begin and to roll back, after which psycopg would have forgotten every
        statement that it had prepared. What it changed would be kept there: it is for looks alone.
        """
        with _judged(), self._look() as session:
            yield session

    def look_up(self, statement: Direct, parameters: Mapping[str, Any]) -> Row | None:
        """The first row of a statement that looks, if there is one: for the hot path, where a session costs more than
        the look. Raises as `reading` does."""
        with _judged():
            if self.is_sqlite:
                with closing(self.engine.raw_connection()) as unwrapped:
                    return statement.first(unwrapped, parameters)
            with self._looker.connect() as connection:
                return statement.first(connection, parameters)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session in a writing transaction: committed at the end of the block, rolled back if it raises.

        Raises Unavailable where no turn comes within the busy limit, StorageFull where the disk is full (nothing is
        committed then), StorageFailed where SQLite's disk refuses.
        """
        with self._announcing() as announced, self._turn(), _judged(), self._write.begin() as session:
            session.connection().info[_ANNOUNCED] = announced
            yield session

    @contextmanager
    def recording(self) -> Iterator[Connection]:
        """As `writing`, without a session, which costs an upload as much as its statements: for the hot path."""
        with self._announcing() as announced, self._turn(), _judged(), self.writer.begin() as connection:
            connection.info[_ANNOUNCED] = announced
            yield connection

    def bury_failed_commits(self) -> None:
        """Make sure that no transaction whose commit failed before this call can still come true.

        What a failed commit wrote stays in SQLite's log behind its end, and a recovery after a crash takes it for
        committed unless another commit has overwritten it. PostgreSQL settles such a commit by itself.
        """
        if self.is_sqlite:
            with self.writing() as session:
                version = session.execute(text("PRAGMA user_version")).scalar_one()
                session.execute(text(f"PRAGMA user_version = {int(version)}"))

    def on_announcement(self, news: News, listener: Callable[[], None]) -> None:
        """Call `listener` after each commit of this process in which such news were announced."""
        self._listeners[news].append(listener)

    def warnings(self) -> list[str]:
        """What is known to be risky about this database, for a person to decide on."""
        if not self.is_sqlite or sqlite3.sqlite_version_info >= SAFE_SQLITE:
            return []
        safe = ".".join(map(str, SAFE_SQLITE))
        return [f"SQLite {sqlite3.sqlite_version} has a rare WAL-reset defect with many connections; {safe} has not."]

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()
        self.writer.dispose()

    @contextmanager
    def _announcing(self) -> Iterator[set[News]]:
        """What a transaction announces, for the listeners to hear of once it is committed."""
        announced: set[News] = set()
        yield announced
        for news in announced:
            for listener in self._listeners[news]:
                listener()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self.is_sqlite:
            yield
            return
        if not self._writer_turn.acquire(timeout=self.busy_seconds):
            raise Unavailable(
                f"The database has been busy for {self.busy_seconds:g} seconds; try again.", retry_after=5
            )
        try:
            yield
        finally:
            self._writer_turn.release()


def announce(connection: Connection, news: News) -> None:
    """Note what this transaction adds: its commit wakes this process's listeners and, by one NOTIFY on PostgreSQL,
    those of other processes, whatever the news (on SQLite these watch the file's data version)."""
    is_first = not connection.info[_ANNOUNCED]
    note_announced(connection, news)
    if is_first and connection.dialect.name == "postgresql":
        connection.execute(select(NOTIFICATION))


def note_announced(connection: Connection, news: News) -> None:
    """The same for a transaction one of whose statements has NOTIFICATION in it."""
    connection.info[_ANNOUNCED].add(news)


def upsert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that knows ON CONFLICT, in the words of the session's database."""
    return postgresql.insert(table) if session.get_bind().dialect.name == "postgresql" else sqlite.insert(table)


@contextmanager
def _judged() -> Iterator[None]:
    """Say what the database's failure means for the caller."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("Every connection to the database is taken; try again.", retry_after=5) from error
    except DBAPIError as error:
        if _is_full(error):
            raise StorageFull("The database's disk is full; nothing was stored.") from error
        if _is_busy(error):
            raise Unavailable("The database is busy or out of reach; try again.", retry_after=5) from error
        if _sqlite_code(error) & 0xFF == sqlite3.SQLITE_IOERR:
            raise StorageFailed("The database's disk refused; whether anything was stored is not known.") from error
        raise


def _is_full(error: DBAPIError) -> bool:
    return _sqlite_code(error) in _SQLITE_FULL or getattr(error.orig, "sqlstate", None) in _POSTGRES_FULL


def _sqlite_code(error: DBAPIError) -> int:
    """SQLite's extended result code; 0 where the error is not SQLite's."""
    return int(getattr(error.orig, "sqlite_errorcode", 0))


def _is_busy(error: DBAPIError) -> bool:
    code = _sqlite_code(error)
    if code:
        return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    state = getattr(error.orig, "sqlstate", None)
    unreachable = isinstance(error, OperationalError) and state is None
    return (
        unreachable or error.connection_invalidated or state in _POSTGRES_BUSY or str(state)[:2] in ("57", "53", "08")
    )


def schema_revision(session: Session) -> str | None:
    """The migration that the database stands at; None where it was never migrated."""
    connection = session.connection()
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = session.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
