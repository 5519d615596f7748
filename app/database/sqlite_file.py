"""The file of an SQLite database; detects that it was moved, deleted or replaced while connections have it open.

SQLite continues to use a file that was renamed or replaced, and its commits are lost to whoever opens the path next. So
each connection remembers device and inode of its file and its log, and compares them with those at the path: the file's
after each begin, the file's and the log's after each commit. A file that replaces another one must be examined and
admitted before transactions use it.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from app.errors import DatabaseUnfit
from app.process.private_files import give_owner_rights_of, make_private

MAX_LOG_BYTES = 64 << 20
"""SQLite truncates a log that grew beyond this, behind a long reader, when it starts the log anew."""

LOG_SUFFIXES = ("-wal", "-shm")
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"journal_size_limit={MAX_LOG_BYTES}")
_RESTORE_ADVICE = "put the database's own file back, and the service continues by itself"


class Identity(NamedTuple):
    """The device and inode of a file, which survive a rename."""

    device: int
    inode: int


class DatabaseFileError(sqlite3.OperationalError):
    """The file at the database's path is missing, empty or not the one that this process may use.

    The text is for clients; `advice` names the path and says what a person can do.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The files that a connection has open: the database, and the paths of its log with their identities."""

    file: Identity
    log: tuple[tuple[str, Identity], ...]


class TrackedConnection(sqlite3.Connection):
    """A connection that remembers the files it has open."""

    opened: OpenFiles


class DatabaseFile:
    """The file at `path`, for all connections of a process. Thread-safe."""

    def __init__(self, path: Path, *, may_create: bool = False) -> None:
        self.path = path
        self._text = str(path)
        self._may_create = may_create
        self._admitted: OpenFiles | None = None
        self._refused: tuple[Identity | None, str] | None = None
        self._pins: list[int] = []
        self._guard = threading.Lock()
        self._examiner = threading.local()

    def open(self, timeout: float, *pragmas: str) -> TrackedConnection:
        """Return a new connection, which waits `timeout` seconds for locks; create the file if that is allowed.

        Raises DatabaseFileError and sqlite3's errors.
        """
        if not self._may_create:
            self._check_admitted(self._identity())
        elif not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = "rwc" if self._may_create else "rw"
        connection = sqlite3.connect(
            f"file:{quote(self._text)}?mode={mode}",
            uri=True,
            factory=TrackedConnection,
            isolation_level=None,
            timeout=timeout,
            check_same_thread=False,
        )
        try:
            self._prepare(connection, pragmas)
        except BaseException:
            connection.close()
            raise
        return connection

    def ensure_exists(self) -> None:
        """Raise DatabaseUnfit, one line that names the path, if the file is missing and may not be created."""
        try:
            if not self._may_create:
                self._identity()
        except DatabaseFileError as error:
            raise DatabaseUnfit(error.advice) from error

    def check(self, connection: TrackedConnection) -> None:
        """Raise DatabaseFileError unless the connection's file is at the path and admitted. Costs one stat.

        The log of a moved file is copied into the file first, because it may have been moved without its log.
        """
        try:
            found = self._identity()
            if found != connection.opened.file:
                raise self._replaced()
        except DatabaseFileError:
            _save_log(connection)
            raise
        self._check_admitted(found)

    def check_with_log(self, connection: TrackedConnection) -> None:
        """Check the connection's file and its log. If only the log is gone, its content is copied into the file."""
        self.check(connection)
        for path, identity in connection.opened.log:
            if _identity_of(path) != identity:
                _save_log(connection)
                raise DatabaseFileError(
                    "The database's log was removed while it was in use; try again.",
                    f"{path} was removed or replaced while the database was in use. What it held was copied into "
                    f"{self._text}. Leave both files of the log alone while the service runs.",
                )

    def sizes(self) -> dict[str, int]:
        """Return the bytes of the "database" file and of its log, "wal"; 0 for a missing file."""
        paths = {"database": Path(os.path.realpath(self._text)), "wal": Path(f"{os.path.realpath(self._text)}-wal")}
        return {name: path.stat().st_size if path.exists() else 0 for name, path in paths.items()}

    @property
    def is_replaced(self) -> bool:
        """Whether another file than the admitted one is at the path."""
        found = _identity_of(self._text)
        return self._admitted is not None and found not in (None, self._admitted.file)

    @contextmanager
    def examining(self) -> Iterator[None]:
        """Let this thread use a file that replaced another one; admit it at the end of the block."""
        self._examiner.sees = True
        try:
            with closing(self.open(0)) as connection:
                yield
                self.check(connection)
                self._admit(connection.opened)
        finally:
            self._examiner.sees = False

    def refuse(self, why: str) -> None:
        """Remember why the file that replaced another one was not admitted."""
        self._refused = _identity_of(self._text), why

    def close(self) -> None:
        """Forget the file, once every connection is closed."""
        with self._guard:
            self._unpin()
            self._admitted = None

    def _prepare(self, connection: TrackedConnection, pragmas: tuple[str, ...]) -> None:
        # A new file is still empty here, and SQLite copies its permissions to the log.
        for suffix in ("", *LOG_SUFFIXES):
            make_private(Path(f"{self._text}{suffix}"))
        for suffix in LOG_SUFFIXES:  # a log created while the database was write-protected is so itself
            give_owner_rights_of(self.path, Path(f"{self._text}{suffix}"))
        for pragma in (*_PRAGMAS, *pragmas):
            connection.execute(f"PRAGMA {pragma}")
        real = os.path.realpath(self._text)  # SQLite names the log after the target of a link
        log = ((path, _identity_of(path)) for path in (f"{real}{suffix}" for suffix in LOG_SUFFIXES))
        connection.opened = OpenFiles(self._identity(), tuple((path, found) for path, found in log if found))
        if self._admitted is None or self._admitted.file == connection.opened.file:
            self._admit(connection.opened)

    def _admit(self, opened: OpenFiles) -> None:
        """Remember the file and its log, and hold each by an O_PATH descriptor.

        The descriptor keeps the inode of a deleted file from being used for a new one. Closing an O_PATH descriptor
        releases none of SQLite's locks.
        """
        with self._guard:
            if opened == self._admitted:
                return
            self._unpin()
            self._admitted = opened
            for path in (self._text, *(path for path, _identity in opened.log)):
                with suppress(OSError):
                    self._pins.append(os.open(path, os.O_PATH | os.O_CLOEXEC))

    def _unpin(self) -> None:
        while self._pins:
            os.close(self._pins.pop())

    def _check_admitted(self, found: Identity) -> None:
        admitted = self._admitted
        if admitted is None or found == admitted.file:
            return
        if not getattr(self._examiner, "sees", False):
            raise self._replaced()
        for path, identity in admitted.log:
            if _identity_of(path) == identity:
                raise DatabaseFileError(
                    "The database's file was replaced, but the log of the previous file is still there.",
                    f"{path} belongs to the previous file at {self._text} and would damage the one that is there now. "
                    f"Remove {self._text}-wal and {self._text}-shm, or {_RESTORE_ADVICE}.",
                )

    def _identity(self) -> Identity:
        """Return the identity of the file at the path. Raises DatabaseFileError if it is missing or empty."""
        try:
            found = os.stat(self._text)  # noqa: PTH116 (Path.stat takes twice as long)
        except OSError as error:
            raise self._missing(error) from error
        if not found.st_size and not self._may_create:
            raise DatabaseFileError(
                "The database's file is empty.", f"There is no database in {self._text}: run `alembic upgrade head`."
            )
        return Identity(found.st_dev, found.st_ino)

    def _missing(self, error: OSError) -> DatabaseFileError:
        if self._admitted is None:
            return DatabaseFileError(
                "There is no database: the log says where; `alembic upgrade head` creates one.",
                f"There is no database at {self._text} ({error.strerror}). Check DATABASE_URL, and that its disk is "
                "mounted; `alembic upgrade head` creates a new one.",
            )
        return DatabaseFileError(
            "The database's file was moved or deleted.",
            f"{self._text} was moved or deleted while it was in use ({error.strerror}): {_RESTORE_ADVICE}.",
        )

    def _replaced(self) -> DatabaseFileError:
        refused = self._refused
        if refused is not None and refused[0] == _identity_of(self._text):
            return DatabaseFileError(
                "The database's file was replaced by one that is not used; the log says why.",
                f"{self._text} was replaced, and the file there now is not used: {refused[1]}",
            )
        return DatabaseFileError(
            "The database's file was replaced; the new one is being examined.",
            f"{self._text} was replaced while it was in use. The file there now is used once it has been examined.",
        )


def _save_log(connection: TrackedConnection) -> None:
    """Roll back a connection's transaction and copy its log into its file, as far as possible."""
    with suppress(sqlite3.Error):
        connection.rollback()
        connection.execute("PRAGMA wal_checkpoint(FULL)")


def _identity_of(path: str) -> Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 (Path.stat takes twice as long)
    except OSError:
        return None
    return Identity(found.st_dev, found.st_ino)
