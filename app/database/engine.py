"""`Database`: one process's access to its database, in read transactions and write transactions.

Use cases begin transactions, in the modules that tests/repository/test_toolchain.py lists; all other code gets the open
transaction. On SQLite a write transaction is BEGIN IMMEDIATE, because a deferred transaction that starts to write fails
if another one has written since it began. After a failure of the file, all connections are closed, and the next
transaction opens whatever is at the path then.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from sqlalchemy import ColumnElement
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from app.database.error_translation import translate_db_errors
from app.database.health import DatabaseHealth
from app.database.postgres_backend import PostgresBackend
from app.database.postgres_connection import PostgresConnection, TimeLimits
from app.database.sql_functions import database_now
from app.database.sqlite_backend import SqliteBackend
from app.database.transactions import ReadTransaction, Topic, WriteTransaction
from app.database.write_probe import write_uncommitted
from app.errors import DatabaseDamaged, DatabaseDiskFailed, DatabaseFailed, DetectionsError, StorageFull, Unavailable

BUSY_SECONDS = 5.0
"""How long a transaction on SQLite waits for other writers before it raises Unavailable."""

POSTGRES_BUSY_SECONDS = 1.5
"""How long a transaction on PostgreSQL waits for a lock."""

PROBE_SECONDS = 1.0
"""How long a write probe waits for other writers."""


class Database:
    """One process's access to a database; created after fork and closed at the end. Thread-safe.

    - `now` is the database's clock as an SQL expression, in seconds since 1970; tests replace it.
    - `busy_seconds` is how long a transaction waits for locks; on PostgreSQL the other `limits` follow from it.
    - `pooler` is "transaction" behind a pooler that gives each transaction another session of the server, and
      `listen_url` leads to the server itself.
    - `may_create` lets an SQLite file be created.

    Read transactions use the engine `reader`, write transactions the engine `writer`.
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
        self.health = DatabaseHealth()
        self._backend = (
            SqliteBackend(self.url, self.busy_seconds, may_create=may_create)
            if self.is_sqlite
            else PostgresBackend(self.url, self.busy_seconds, limits=limits, pooler=pooler, listen_url=listen_url)
        )
        self.reader, self.writer = self._backend.reader, self._backend.writer
        self._subscribers: dict[Topic, list[Callable[[], None]]] = {topic: [] for topic in Topic}

    @contextmanager
    def read_transaction(self, *, statement_seconds: float | None = None) -> Iterator[ReadTransaction]:
        """Begin a transaction that changes nothing.

        `statement_seconds` replaces the time limit of its statements. Raises the errors that
        `app.database.error_translation` lists.
        """
        engine = self._backend.reader_for(statement_seconds)
        with (
            self._watched(),
            engine.connect() as core,
            ReadTransaction(core) as transaction,
            self._backend.limit_statements(transaction, statement_seconds),
        ):
            yield transaction

    @contextmanager
    def write_transaction(
        self, *, statement_seconds: float | None = None, waiting_since: float | None = None
    ) -> Iterator[WriteTransaction]:
        """Begin a transaction that commits at the end of the block, or rolls back if the block raises.

        `statement_seconds` replaces the time limit of its statements. `waiting_since` is when the caller began to wait,
        on the monotonic clock, if that was earlier. Raises the errors that `app.database.error_translation` lists.
        """
        with (
            self._watched(),
            self._backend.lock_writer(self.busy_seconds, since=waiting_since),
            self.writer.connect() as core,
            core.begin(),
            WriteTransaction(core) as transaction,
            self._backend.limit_statements(transaction, statement_seconds),
        ):
            yield transaction
            transaction.flush()
            if transaction.topics:
                self._backend.notify_others(core)
        self.health.committed()
        for topic in transaction.topics:
            for subscriber in self._subscribers[topic]:
                subscriber()

    def subscribe(self, topic: Topic, subscriber: Callable[[], None]) -> None:
        """Call `subscriber` after each commit of this process that notifies of the topic."""
        self._subscribers[topic].append(subscriber)

    def listen(self) -> PostgresConnection | None:
        """Return a new connection that receives the notifications of other processes; the caller closes it.

        Returns None on SQLite and behind a transaction pooler. Raises psycopg's errors.
        """
        return self._backend.listen()

    def ensure_usable(self) -> None:
        """Raise the last failure again, unless a write probe, at most one a second, shows that it is over."""
        failure = self.health.failure
        if failure is None:
            return
        if self.health.seconds_since_failure < PROBE_SECONDS:
            raise failure
        self.check_writable()

    def check_writable(self, seconds: float = PROBE_SECONDS) -> None:
        """Write to the database, unless a recent commit has shown that it is writable; raise as `write_transaction`.

        The write is rolled back, so it wakes nobody; after a failure one is committed.
        """
        with self._watched():
            self._backend.check_place()
        if isinstance(self.health.failure, DatabaseDamaged):
            raise self.health.failure
        if self.health.is_fresh:
            return
        with self._watched(), self._backend.lock_writer(seconds), self.writer.connect() as connection:
            write_uncommitted(connection)
        if self.health.failure is not None:
            self._commit_nothing()

    def overwrite_failed_commit(self) -> None:
        """Overwrite log frames left by a failed commit, so that crash recovery cannot replay them.

        SQLite leaves the frames of a failed commit behind the end of its log. After a crash, recovery takes them for
        committed unless another commit has overwritten them. PostgreSQL rolls such a commit back.
        """
        if self.is_sqlite:
            self._commit_nothing()

    def admit_replacement(self, examine: Callable[[], None]) -> bool:
        """Use the file that has replaced SQLite's, unless `examine` raises; return whether it is used from now on.

        Until then only `examine` can use the file.
        """
        if not isinstance(self._backend, SqliteBackend) or not self._backend.file.is_replaced:
            return False
        self._dispose()
        try:
            with translate_db_errors(self._backend.has_disk_space), self._backend.file.examining():
                examine()
        except DetectionsError as error:
            self._backend.file.refuse(getattr(error, "advice", str(error)))
            return False
        self.health.clear()
        return True

    def check_file(self, connection: object) -> None:
        """Raise DatabaseFileError unless the file that a connection of `reader` has open is the one at the path."""
        self._backend.check_connection(connection)

    def truncate_log(self) -> bool:
        """Copy SQLite's log into the file and truncate it, unless somebody uses it; return False if there was none.

        A log keeps the size that it reached behind a long reader or a VACUUM.
        """
        return self._backend.truncate_log()

    def sizes(self, session: Session) -> dict[str, int]:
        """Return the bytes of the "database" and, on SQLite, of its log, "wal"."""
        return self._backend.sizes(session)

    def warnings(self) -> list[str]:
        """Return known risks of this database, in words for people."""
        return self._backend.warnings()

    def check(self) -> str | None:
        """Check the database at a start; return a line worth logging, if there is one.

        Raises DatabaseUnfit if a person must change something first, as when SQLite's file is missing. An unreachable
        server is no error, because it may come up later.
        """
        return self._backend.check()

    def ensure_exists(self) -> None:
        """Raise DatabaseUnfit, one line that names the path, if SQLite's file is missing and may not be created."""
        self._backend.ensure_exists()

    def unreachable_reason(self) -> str | None:
        """Return why no connection can be made now, in the words of server or system; None if one can."""
        return self._backend.unreachable_reason()

    def record_server(self) -> None:
        """Record with which PostgreSQL server the database is used, after its own row was created."""
        self._backend.record_server()

    def close(self) -> None:
        """Close every connection."""
        self._dispose()
        self._backend.close()

    def _dispose(self) -> None:
        self.reader.dispose()
        self.writer.dispose()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Translate errors and note failures; after a failure of SQLite's file, close all connections.

        After a failure of its disk they stay open: a commit whose sync failed is invisible to them, but whoever opens
        the file anew may see it, although it is not durable.
        """
        try:
            with translate_db_errors(self._backend.has_disk_space):
                yield
        except (DatabaseFailed, StorageFull) as error:
            if self.is_sqlite and not isinstance(error, DatabaseDiskFailed | StorageFull):
                self._dispose()
            self.health.failed(error)
            raise
        except Unavailable:
            self.health.forget_last_commit()
            raise

    def _commit_nothing(self) -> None:
        with self.write_transaction() as session:
            self._backend.commit_nothing(session)
