"""Translates errors of drivers and SQLAlchemy into errors of this service, for both kinds of database.

| cause | SQLite | PostgreSQL | raised |
|---|---|---|---|
| disk or quota full | FULL, a failed write on a full disk | 53100 | StorageFull |
| lock timeout, too many connections, unreachable server | BUSY, LOCKED | 55P03, 57…, 08…, no answer | Unavailable |
| file missing or replaced | DatabaseFileError | | DatabaseFailed |
| read-only | READONLY, PERM | 25006 | DatabaseFailed |
| I/O error | IOERR, CANTOPEN | 58… | DatabaseDiskFailed |
| damaged data | CORRUPT, NOTADB | XX001, XX002 | DatabaseDamaged |
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.database.sqlite_file import DatabaseFileError
from app.errors import DatabaseDamaged, DatabaseDiskFailed, DatabaseFailed, DetectionsError, StorageFull, Unavailable

RETRY_AFTER_SECONDS = 5.0

READ_ONLY = "25006"
"""PostgreSQL's code for a transaction that may not write: on a standby, or on a server set to read-only."""

RESCUE = 'docs/operations.md, "A damaged database", describes how to rescue what can be read'

_FULL = "53100"
_BUSY = ("55P03", "57014", "40001", "40P01", "25P03")  # locks, time limits, serialization, deadlock, idle too long
_BUSY_CLASSES = ("57", "53", "08")  # the server is stopping, has no room, or the connection broke
_PREPARED_ELSEWHERE = ("26000", "42P05")  # a statement is not there, or is there already, in this server's session
_DAMAGED = ("XX001", "XX002")
_IO_ERROR_CLASS = "58"
_SQLITE_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM)
_SQLITE_READ_ONLY = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
_SQLITE_IO_ERROR = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_SQLITE_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def translate_db_errors(has_disk_space: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Raise one of the errors above instead of the exception of the driver or of SQLAlchemy.

    `has_disk_space` tells whether a file in SQLite's folder can grow: for an exhausted quota SQLite only reports a
    failed write. Other errors of SQLAlchemy (IntegrityError, a missing table) pass through.
    """
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("All connections to the database are in use; try again.", RETRY_AFTER_SECONDS) from error
    except (DBAPIError, sqlite3.Error) as error:
        translated = _translated(error, has_disk_space)
        if translated is None:
            raise
        raise translated from error


def sqlstate(error: BaseException | None) -> str | None:
    """Return the PostgreSQL error code of a driver's error; None for other errors and without a server's answer."""
    state: str | None = getattr(error, "sqlstate", None)
    return state


def _translated(error: DBAPIError | sqlite3.Error, has_disk_space: Callable[[], bool]) -> DetectionsError | None:
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, DatabaseFileError):
        return DatabaseFailed(str(original), original.advice)
    code = getattr(original, "sqlite_errorcode", 0)  # SQLite's extended result code; 0 where the error is not SQLite's
    if code:
        return _translated_sqlite(code, f"{original} ({getattr(original, 'sqlite_errorname', code)})", has_disk_space)
    return _translated_postgres(error, sqlstate(original)) if isinstance(error, DBAPIError) else None


def _translated_sqlite(code: int, words: str, has_disk_space: Callable[[], bool]) -> DetectionsError | None:
    kind = code & 0xFF
    if kind == sqlite3.SQLITE_FULL or (kind in _SQLITE_IO_ERROR and not has_disk_space()):
        return _full()
    if kind in _SQLITE_BUSY:
        return Unavailable("The database is busy: another program holds its lock; try again.", RETRY_AFTER_SECONDS)
    if kind in _SQLITE_READ_ONLY:
        return DatabaseFailed(
            "The database is read-only; try again.",
            f"The database's file, its log or its folder is not writable ({words}): check owner and permissions, and "
            "whether the file system is mounted read-only.",
        )
    if kind in _SQLITE_IO_ERROR:
        return DatabaseDiskFailed(
            "The database's disk failed; whether anything was stored is unknown.",
            f"The database's disk failed ({words}): check the disk and the system's log.",
        )
    return _damaged(words) if kind in _SQLITE_DAMAGED else None


def _translated_postgres(error: DBAPIError, state: str | None) -> DetectionsError | None:
    """Return the translated error; None if the cause is the statement itself."""
    if state == _FULL:
        return _full()
    if state in _DAMAGED:
        return _damaged(str(error.orig))
    if state == READ_ONLY:
        return DatabaseFailed("The database is read-only (a standby, or set to read-only); try again.")
    if str(state)[:2] == _IO_ERROR_CLASS:
        return DatabaseDiskFailed(
            "The database's disk failed; whether anything was stored is unknown.",
            f"The database server's disk failed: {error.orig}",
        )
    reason = _why_unavailable(error, state)
    return None if reason is None else Unavailable(reason, RETRY_AFTER_SECONDS)


def _why_unavailable(error: DBAPIError, state: str | None) -> str | None:
    if state in _PREPARED_ELSEWHERE:
        return (
            "A pooler gives each transaction another session of the database, which lacks the prepared statements: "
            "set DATABASE_POOLER=transaction."
        )
    silent = isinstance(error, OperationalError) and state is None
    if silent or error.connection_invalidated or state in _BUSY or str(state)[:2] in _BUSY_CLASSES:
        return "The database is busy or unreachable; try again."
    return None


def _full() -> StorageFull:
    return StorageFull("The database's disk is full; nothing was stored.")


def _damaged(words: str) -> DatabaseDamaged:
    return DatabaseDamaged(
        "The database is damaged; nothing is accepted until it is restored.",
        f"The database is damaged ({words}): `flask outbox verify` shows where; {RESCUE}.",
    )
