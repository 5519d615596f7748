"""One process's way to the database: read transactions and write transactions, on either kind of database.

Transactions begin in the modules that tests/repository/test_toolchain.py lists; everything else is handed the open
one. On SQLite a write transaction is BEGIN IMMEDIATE, because a deferred one that turns into a writer fails at once
when another has written meanwhile, and the writers of one process queue on a lock of ours; how they wait for those of
other processes is `app.database.sqlite_engine`'s. A failure of the file or of the disk is remembered, and every
connection given up: the next transaction opens what is there then.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import psycopg
from sqlalchemy import ColumnElement, Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from app.database import postgres_engine, sqlite_engine
from app.database.condition import DatabaseCondition
from app.database.error_translation import translate_db_errors
from app.database.pooler import check_pooler
from app.database.postgres_connection import Connector, PostgresConnection, TimeLimits
from app.database.sql_functions import database_now
from app.database.sqlite_file import DatabaseFile, PlacedConnection
from app.database.transactions import ReadTransaction, Topic, WriteTransaction
from app.database.write_trial import has_room, write_and_take_back
from app.database.write_turn import WriteTurn
from app.errors import DatabaseDamaged, DatabaseDiskFailed, DatabaseFailed, DetectionsError, StorageFull, Unavailable

BUSY_SECONDS = 5.0
"""How long a transaction on SQLite waits for its turn and for the lock, together, before the caller is told to come
back."""

POSTGRES_BUSY_SECONDS = 1.5
"""How long a transaction waits on PostgreSQL for a lock that somebody else holds: a row's, as a rule, and for its
commit."""

TRIAL_SECONDS = 1.0
"""How long a trial of writing waits for its turn and for the lock."""

SAFE_SQLITE = (3, 51, 3)
PG_CHANNEL = "detections_outbox"
NOTICE = f"NOTIFY {PG_CHANNEL}"
"""Wakes other processes at the commit, whatever the topics; on SQLite they watch the file's data version."""


class Database:
    """One process's way to the database; to be made after fork, and closed at the end.

    Read transactions are the engine `reader`'s, write transactions the engine `writer`'s; on PostgreSQL they share a
    pool. `now` is an SQL expression for the time in seconds since 1970; tests hand in another. A transaction waits at
    most `busy_seconds` for what others hold; on PostgreSQL the other limits follow from it, unless `limits` are given.
    `pooler` says that a pooler gives each transaction another session of the server, and `listen_url` where a
    connection that hears notifications is to be had. An SQLite database that is not there is made only where
    `may_create` says so.
    """

    def __init__(
        self,
        url: str,
        *,
        now: ColumnElement[float] | None = None,
        busy_seconds: float | None = None,
        limits: TimeLimits | None = None,
        pooler: Literal["none", "transaction"] = "none",
        listen_url: str | None = None,
        may_create: bool = False,
    ) -> None:
        self.url = make_url(url)
        self.now: ColumnElement[float] = database_now() if now is None else now
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.busy_seconds = busy_seconds or (BUSY_SECONDS if self.is_sqlite else POSTGRES_BUSY_SECONDS)
        self.condition = DatabaseCondition()
        self._connector = self._listening = self._file = None
        self._turn = WriteTurn()
        self._has_room: Callable[[], bool] = lambda: True
        if self.is_sqlite:
            path = Path(self.url.database or "").absolute()
            self._has_room = partial(has_room, path.parent)
            self._file = file = DatabaseFile(path, may_create=may_create)
            self.reader = sqlite_engine.reader(self.url, file, self.busy_seconds)
            self.writer = sqlite_engine.writer(self.url, file, self.busy_seconds, self._turn.left)
        else:
            self._limits = limits or TimeLimits.within(self.busy_seconds)
            self._connector = Connector(self.url, self._limits, own_sessions=pooler == "none")
            self._listening = Connector(listen_url, self._limits) if listen_url else None
            self.writer, self.reader = postgres_engine.make(self.url, self._connector, self.busy_seconds)
        self._subscribers: dict[Topic, list[Callable[[], None]]] = {topic: [] for topic in Topic}

    def note_server(self) -> None:
        """Have the database know with which server it is used, for connections that are older than its first row
        (`app.database.postgres_failover`)."""
        if self._connector is not None:
            postgres_engine.connect(self._connector).close()

    @contextmanager
    def read_transaction(self, *, statement_seconds: float | None = None) -> Iterator[ReadTransaction]:
        """A transaction that changes nothing.

        `statement_seconds` is how long a statement of it may take, where that is more than usual. Raises what
        `app.database.error_translation` lists.
        """
        engine = self.reader if statement_seconds is None or self.is_sqlite else self.writer
        with (
            self._watched(),
            engine.connect() as core,
            ReadTransaction(core) as transaction,
            self._taking(transaction, statement_seconds),
        ):
            yield transaction

    @contextmanager
    def write_transaction(
        self, *, statement_seconds: float | None = None, waiting_since: float | None = None
    ) -> Iterator[WriteTransaction]:
        """A transaction that is committed at the end of the block, and rolled back if the block raises.

        `statement_seconds` as for `read_transaction`. `waiting_since` is when the caller's waiting for its turn began,
        on the monotonic clock, where that was before now. Raises what `app.database.error_translation` lists.
        """
        with (
            self._watched(),
            self._write_turn(since=waiting_since),
            self.writer.connect() as core,
            core.begin(),
            WriteTransaction(core) as transaction,
            self._taking(transaction, statement_seconds),
        ):
            yield transaction
            transaction.flush()
            if transaction.topics and not self.is_sqlite:
                _driver(core).notice = NOTICE
        self.condition.committed()
        for topic in transaction.topics:
            for subscriber in self._subscribers[topic]:
                subscriber()

    def ensure_usable(self) -> None:
        """Raise the last failure again, unless it is over: for whoever is to be refused before anything is received.

        A failed database is tried at most once a second.
        """
        failure = self.condition.failure
        if failure is None:
            return
        if self.condition.seconds_since_failure < TRIAL_SECONDS:
            raise failure
        self.try_writing()

    def try_writing(self, seconds: float = TRIAL_SECONDS) -> None:
        """Write, unless a commit has just shown that this can be done; raises what `writing` does.

        What is written is taken back, so nobody else is woken; after a failure it is committed, to be sure.
        """
        with self._watched():
            self._check_place()
        if isinstance(self.condition.failure, DatabaseDamaged):
            raise self.condition.failure
        if self.condition.is_fresh:
            return
        with self._watched(), self._write_turn(seconds), self.writer.connect() as connection:
            write_and_take_back(connection)
        if self.condition.failure is not None:
            self._commit_nothing()

    def overwrite_failed_commit(self) -> None:
        """Overwrite log frames left by a failed commit, so that crash recovery cannot replay them.

        What a failed commit wrote stays in SQLite's log behind its end, and a recovery after a crash takes it for
        committed unless another commit has overwritten it. PostgreSQL rolls such a commit back by itself.
        """
        if self.is_sqlite:
            self._commit_nothing()

    def admit_replaced(self, examine: Callable[[], None]) -> bool:
        """Go on with a file that has come to the place of SQLite's, unless `examine` raises something against it.

        Nobody else uses that file before. False where nothing has come there.
        """
        if self._file is None or not self._file.is_replaced:
            return False
        self._give_up_connections()
        try:
            with translate_db_errors(self._has_room), self._file.examining():
                examine()
        except DetectionsError as error:
            self._file.refuse(getattr(error, "advice", str(error)))
            return False
        self.condition.clear()
        return True

    def check_place(self, connection: object) -> None:
        """Raise NotAtItsPlace, sqlite3's error, unless a connection of `reader` has what is at the database's path."""
        if self._file is not None and isinstance(connection, PlacedConnection):
            self._file.check_with_log(connection)

    def truncate_log(self) -> bool:
        """Copy what SQLite's log holds into the database file and cut the log to nothing, unless somebody uses it.

        A log keeps the size that it grew to behind a long reader or a VACUUM. PostgreSQL looks after its own. False
        where there was nothing to cut.
        """
        if self._file is None or not self._file.sizes()["wal"]:
            return False
        with closing(self.writer.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    def sizes(self, session: Session) -> dict[str, int]:
        """How many bytes the "database" takes, and on SQLite its log, the "wal"."""
        if self._file is not None:
            return self._file.sizes()
        return {"database": session.execute(text("SELECT pg_database_size(current_database())")).scalar_one()}

    def subscribe(self, topic: Topic, subscriber: Callable[[], None]) -> None:
        """Call `subscriber` after each commit of this process that notifies of the topic."""
        self._subscribers[topic].append(subscriber)

    def warnings(self) -> list[str]:
        """What is known to be risky about this database, for a person to decide on."""
        if not self.is_sqlite:
            return []
        place = sqlite_engine.place_warning(self.url)
        found = [place] if place else []
        if sqlite3.sqlite_version_info < SAFE_SQLITE:
            safe, version = ".".join(map(str, SAFE_SQLITE)), sqlite3.sqlite_version
            found.append(f"SQLite {version} has a rare WAL-reset defect with many connections; {safe} has not.")
        return found

    def check(self) -> str | None:
        """Look at the database as a start does: returns a line that is worth knowing about it, if there is one.

        Raises DatabaseUnfit where a person has to change something first, as where SQLite's file is not there. A server
        that is out of reach may come yet.
        """
        self.ensure_there()
        looks = (
            (self._connector, "DATABASE_URL", "set DATABASE_POOLER=transaction"),
            (self._listening, "DATABASE_LISTEN_URL", "name the server itself"),
        )
        try:
            noticed = [check_pooler(connector, *words) for connector, *words in looks if connector]
        except psycopg.Error:
            return None
        return " ".join(filter(None, noticed)) or None

    def unreachable_reason(self) -> str | None:
        """Why no connection can be had now, in the server's or the system's words; None where one can."""
        if self._connector is None:
            return None
        try:
            self._connector.connect().close()
        except psycopg.Error as error:
            return str(error)
        return None

    def ensure_there(self) -> None:
        """Raise DatabaseUnfit, one line that names the path, where SQLite's file is not there and may not be made."""
        if self._file is not None:
            self._file.ensure_there()

    def listen(self) -> PostgresConnection | None:
        """A new connection that hears the notifications of PG_CHANNEL, the caller's to close; None where there is none,
        as on SQLite and behind a pooler. Raises psycopg's errors."""
        connector = self._listening or self._connector
        if connector is None or not connector.own_sessions:
            return None
        connection = connector.connect()
        connection.execute(f"LISTEN {PG_CHANNEL}".encode())
        return connection

    def close(self) -> None:
        """Give back every connection."""
        self._give_up_connections()
        if self._file is not None:
            self._file.close()

    def _give_up_connections(self) -> None:
        self.reader.dispose()
        self.writer.dispose()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Translate errors; after a failure of the file no connection is used again.

        After one of its disk they are: a commit whose sync has failed stays hidden from them, and whoever opens the
        database anew may find it done, although it is not durable.
        """
        try:
            with translate_db_errors(self._has_room):
                yield
        except (DatabaseFailed, StorageFull) as error:
            if self.is_sqlite and not isinstance(error, DatabaseDiskFailed | StorageFull):
                self._give_up_connections()
            self.condition.failed(error)
            raise
        except Unavailable:
            self.condition.doubt()
            raise

    def _commit_nothing(self) -> None:
        with self.write_transaction() as session:
            if self.is_sqlite:
                version = session.execute(text("PRAGMA user_version")).scalar_one()
                session.execute(text(f"PRAGMA user_version = {int(version)}"))
            else:
                write_and_take_back(session.connection())

    def _check_file(self, connection: object) -> None:
        if self._file is not None and isinstance(connection, PlacedConnection):
            self._file.check(connection)

    def _check_place(self) -> None:
        if self._file is not None:
            with closing(self.reader.raw_connection()) as connection:
                self.check_place(connection.driver_connection)

    @contextmanager
    def _taking(self, session: Session, statement_seconds: float | None) -> Iterator[None]:
        """Give the statements of a session's transaction more time than PostgreSQL's limits do."""
        if statement_seconds is None or self.is_sqlite:
            yield
            return
        session.connection().exec_driver_sql(f"SET LOCAL statement_timeout = {int(statement_seconds * 1000)}")
        driver = _driver(session.connection())
        driver.exchange_seconds = statement_seconds + 1
        try:
            yield
        finally:
            driver.exchange_seconds = self._limits.exchange

    @contextmanager
    def _write_turn(self, seconds: float | None = None, *, since: float | None = None) -> Iterator[None]:
        if not self.is_sqlite:
            yield
            return
        with self._turn.taken(self.busy_seconds if seconds is None else seconds, since):
            yield


def _driver(connection: Connection) -> PostgresConnection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, PostgresConnection)
    return driver
