"""The file of an SQLite database, and whether what this process has open is what lies at its path.

SQLite goes on with a file that was renamed, deleted or replaced beneath it: what is committed there is lost to whoever
opens the path next. So each connection knows the device and inode of the file and of its log, and compares them with
those at the path: the file's before it is used, the file's and the log's after each commit. A file that comes to the
place of another is opened by nobody but its examiner before it is admitted.
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
"""A log that grew beyond this, behind a long reader, is cut to it when SQLite starts the log anew."""

LOG_SUFFIXES = ("-wal", "-shm")
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"journal_size_limit={MAX_LOG_BYTES}")
_PUT_BACK = "put the database's own file back and the service goes on by itself"


class Identity(NamedTuple):
    """Of a file, wherever it is renamed to."""

    device: int
    inode: int


class DatabaseFileError(sqlite3.OperationalError):
    """What lies at the database's path is not the file that this process may use.

    The text is for everybody; `advice` names the path and says what a person can do.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The file that a connection has open, and its log: each path of the log with the file that was there."""

    file: Identity
    log: tuple[tuple[str, Identity], ...]


class TrackedConnection(sqlite3.Connection):
    """A connection that knows what it has open."""

    opened: OpenFiles


class DatabaseFile:
    """The file at `path`, for all connections of a process. Safe to use from several threads."""

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
        """A new connection, which waits `timeout` seconds for locks. Makes no file, unless this one may be created.

        Raises DatabaseFileError, and sqlite3's errors.
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
        """Raise DatabaseUnfit, one line that names the path, where there is no database and none may be created."""
        try:
            if not self._may_create:
                self._identity()
        except DatabaseFileError as error:
            raise DatabaseUnfit(error.advice) from error

    def check(self, connection: TrackedConnection) -> None:
        """Raise DatabaseFileError unless the connection's file is the one at the path, and may be used. Costs one stat.

        A file that has gone elsewhere is given what its log holds first: it may have gone there without it.
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
        """The same, also of the connection's log. Where that alone is gone, what it holds is copied into the file."""
        self.check(connection)
        for path, identity in connection.opened.log:
            if _identity_of(path) != identity:
                _save_log(connection)
                raise DatabaseFileError(
                    "The database's log was removed beneath it; try again.",
                    f"{path} was removed or replaced while the database was in use. What it held was copied into "
                    f"{self._text}. Leave both files of the log alone while the service runs.",
                )

    def sizes(self) -> dict[str, int]:
        """How many bytes the "database" and its log, the "wal", have; 0 where there is none."""
        paths = {"database": Path(os.path.realpath(self._text)), "wal": Path(f"{os.path.realpath(self._text)}-wal")}
        return {name: path.stat().st_size if path.exists() else 0 for name, path in paths.items()}

    @property
    def is_replaced(self) -> bool:
        """Whether another file than the admitted one is at the path."""
        found = _identity_of(self._text)
        return self._admitted is not None and found not in (None, self._admitted.file)

    @contextmanager
    def examining(self) -> Iterator[None]:
        """Let this thread use a file that came to the path; it is admitted at the end of the block."""
        self._examiner.sees = True
        try:
            with closing(self.open(0)) as connection:
                yield
                self.check(connection)
                self._admit(connection.opened)
        finally:
            self._examiner.sees = False

    def refuse(self, why: str) -> None:
        """Remember what the examiner has found against the file that came to the path."""
        self._refused = _identity_of(self._text), why

    def close(self) -> None:
        """Let go of the file, once every connection is closed."""
        with self._guard:
            self._unpin()
            self._admitted = None

    def _prepare(self, connection: TrackedConnection, pragmas: tuple[str, ...]) -> None:
        # A new file is still empty now, and SQLite gives its log the rights that the database has.
        for suffix in ("", *LOG_SUFFIXES):
            make_private(Path(f"{self._text}{suffix}"))
        for suffix in LOG_SUFFIXES:  # one that was made while the database was write-protected is so itself
            give_owner_rights_of(self.path, Path(f"{self._text}{suffix}"))
        for pragma in (*_PRAGMAS, *pragmas):
            connection.execute(f"PRAGMA {pragma}")
        real = os.path.realpath(self._text)  # SQLite names the log after the file that a link leads to
        log = ((path, _identity_of(path)) for path in (f"{real}{suffix}" for suffix in LOG_SUFFIXES))
        connection.opened = OpenFiles(self._identity(), tuple((path, found) for path, found in log if found))
        if self._admitted is None or self._admitted.file == connection.opened.file:
            self._admit(connection.opened)

    def _admit(self, opened: OpenFiles) -> None:
        """Know the file, and its log, from now on. Each is held by a descriptor that neither reads nor writes, whose
        closing gives up no lock of SQLite's: else the number of a deleted one would soon be that of a new one."""
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
                    "Another file is at the database's place, beside the log of the one before.",
                    f"{path} belongs to the file that was at {self._text} before, and would damage the one that is "
                    f"there now. Remove {self._text}-wal and {self._text}-shm, or {_PUT_BACK}.",
                )

    def _identity(self) -> Identity:
        """Of what is at the path. Raises DatabaseFileError where that is no database."""
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
                "There is no database: the log says where; `alembic upgrade head` makes one.",
                f"There is no database at {self._text} ({error.strerror}). Is DATABASE_URL right, and its disk "
                "mounted? `alembic upgrade head` makes a new one.",
            )
        return DatabaseFileError(
            "The database's file is not at its place.",
            f"{self._text} was moved or deleted while it was in use ({error.strerror}): {_PUT_BACK}.",
        )

    def _replaced(self) -> DatabaseFileError:
        refused = self._refused
        if refused is not None and refused[0] == _identity_of(self._text):
            return DatabaseFileError(
                "Another file is at the database's place, and it is not used; the log says why.",
                f"{self._text} was replaced, and the file there now is not used: {refused[1]}",
            )
        return DatabaseFileError(
            "Another file is at the database's place; it is being examined.",
            f"{self._text} was replaced while it was in use. The file there now is used once it has been examined.",
        )


def _save_log(connection: TrackedConnection) -> None:
    """Copy what the log of a connection holds into its file, as far as that can be done; its transaction is over."""
    with suppress(sqlite3.Error):
        connection.rollback()
        connection.execute("PRAGMA wal_checkpoint(FULL)")


def _identity_of(path: str) -> Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 (Path.stat takes twice as long)
    except OSError:
        return None
    return Identity(found.st_dev, found.st_ino)
