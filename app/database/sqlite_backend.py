"""What `Database` does differently on SQLite: one writer at a time, a file that may be replaced, a log to truncate."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from app.database import sqlite_engine
from app.database.sqlite_file import DatabaseFile, TrackedConnection
from app.database.write_probe import has_disk_space
from app.database.writer_lock import WriterLock

SAFE_SQLITE = (3, 51, 3)
"""The first version without the WAL-reset defect."""


class SqliteBackend:
    """The engines and the file of an SQLite database, with the same methods as `PostgresBackend`.

    The writers of one process queue on a lock, and then wait for those of other processes
    (`app.database.sqlite_engine`), with one deadline for both.
    """

    def __init__(self, url: URL, busy_seconds: float, *, may_create: bool) -> None:
        self._url = url
        self._writer_lock = WriterLock()
        self.file = DatabaseFile(Path(url.database or "").absolute(), may_create=may_create)
        self.reader = sqlite_engine.reader(url, self.file, busy_seconds)
        self.writer = sqlite_engine.writer(url, self.file, busy_seconds, self._writer_lock.seconds_left)

    def reader_for(self, statement_seconds: float | None) -> Engine:
        """Return the engine for a read transaction; SQLite has no time limit for statements."""
        return self.reader

    @contextmanager
    def limit_statements(self, session: Session, seconds: float | None) -> Iterator[None]:
        """Do nothing: SQLite has no time limit for statements."""
        yield

    @contextmanager
    def lock_writer(self, seconds: float, *, since: float | None = None) -> Iterator[None]:
        """Hold the process's writer lock within the block; raise Unavailable after `seconds`."""
        with self._writer_lock.acquired(seconds, since):
            yield

    def notify_others(self, connection: Connection) -> None:
        """Do nothing: other processes poll the file's data version."""

    def commit_nothing(self, session: Session) -> None:
        """Write the same header again, so that the commit writes to the log."""
        version = session.execute(text("PRAGMA user_version")).scalar_one()
        session.execute(text(f"PRAGMA user_version = {int(version)}"))

    def has_disk_space(self) -> bool:
        """Whether a file beside the database can grow."""
        return has_disk_space(self.file.path.parent)

    def check_connection(self, connection: object) -> None:
        """Raise DatabaseFileError unless a connection's file and log are those at the path."""
        if isinstance(connection, TrackedConnection):
            self.file.check_with_log(connection)

    def check_place(self) -> None:
        """Raise DatabaseFileError unless the file in use is the one at the path."""
        with closing(self.reader.raw_connection()) as connection:
            self.check_connection(connection.driver_connection)

    def truncate_log(self) -> bool:
        """Copy the log into the file and truncate it, unless somebody uses it; return False if it was empty."""
        if not self.file.sizes()["wal"]:
            return False
        with closing(self.writer.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    def sizes(self, session: Session) -> dict[str, int]:
        """Return the bytes of the "database" file and of its log, "wal"."""
        return self.file.sizes()

    def warnings(self) -> list[str]:
        """Return known risks of this SQLite database."""
        location = sqlite_engine.location_warning(self._url)
        found = [location] if location else []
        if sqlite3.sqlite_version_info < SAFE_SQLITE:
            safe, version = ".".join(map(str, SAFE_SQLITE)), sqlite3.sqlite_version
            found.append(f"SQLite {version} has a rare WAL-reset defect with many connections; {safe} has not.")
        return found

    def check(self) -> None:
        """Raise DatabaseUnfit if the file does not exist and may not be created."""
        self.file.ensure_exists()

    def ensure_exists(self) -> None:
        """Raise DatabaseUnfit if the file does not exist and may not be created."""
        self.file.ensure_exists()

    def unreachable_reason(self) -> None:
        """Return None: a file is not waited for."""

    def record_server(self) -> None:
        """Do nothing: SQLite has no server."""

    def listen(self) -> None:
        """Return None: SQLite has no notifications."""

    def close(self) -> None:
        """Close the file, once every connection is closed."""
        self.file.close()
