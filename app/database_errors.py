"""What an error of a database means for the caller: the one place that translates busy, full and failed."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import StorageFailed, StorageFull, Unavailable

RETRY_AFTER_SECONDS = 5.0

READ_ONLY = "25006"
"""PostgreSQL's code where a transaction may not write: a standby, or a server that was set so, as for a full disk."""

_FULL = "53100"
_BUSY = ("55P03", "57014", "40001", "40P01", "25P03")  # locks, time limits, serialization, deadlock, idle too long
_BUSY_CLASSES = ("57", "53", "08")  # the server is stopping, has no room, or the connection broke
_PREPARED_ELSEWHERE = ("26000", "42P05")  # a statement is not there, or is there already, in this server's session
_SQLITE_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)  # the second: no room for the WAL's index


@contextmanager
def translate_db_errors() -> Iterator[None]:
    """Raise StorageFull, StorageFailed or Unavailable in place of SQLAlchemy's exception, where it means that.

    What remains SQLAlchemy's (IntegrityError, a missing table) is for the caller to handle.
    """
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("Every connection to the database is taken; try again.", RETRY_AFTER_SECONDS) from error
    except DBAPIError as error:
        if _is_full(error):
            raise StorageFull("The database's disk is full; nothing was stored.") from error
        if (reason := _why_unavailable(error)) is not None:
            raise Unavailable(reason, RETRY_AFTER_SECONDS) from error
        if _sqlite_code(error) & 0xFF == sqlite3.SQLITE_IOERR:
            raise StorageFailed("The database's disk refused; whether anything was stored is not known.") from error
        raise


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's code of an error of its driver; None where the error is another's, or the server said nothing."""
    state: str | None = getattr(error, "sqlstate", None)
    return state


def _is_full(error: DBAPIError) -> bool:
    return _sqlite_code(error) in _SQLITE_FULL or sqlstate(error.orig) == _FULL


def _sqlite_code(error: DBAPIError) -> int:
    """SQLite's extended result code; 0 where the error is not SQLite's."""
    return int(getattr(error.orig, "sqlite_errorcode", 0))


def _why_unavailable(error: DBAPIError) -> str | None:
    """Why the same call may succeed later; None where it may not."""
    code, state = _sqlite_code(error), sqlstate(error.orig)
    if code:
        is_busy = code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        return "The database is busy; try again." if is_busy else None
    if state == READ_ONLY:
        return "The database is read-only (a standby, or set so); try again."
    if state in _PREPARED_ELSEWHERE:
        return (
            "A pooler gives each transaction another session of the database, where what was prepared is not:"
            " set DATABASE_POOLER=transaction."
        )
    silent = isinstance(error, OperationalError) and state is None
    if silent or error.connection_invalidated or state in _BUSY or str(state)[:2] in _BUSY_CLASSES:
        return "The database is busy or out of reach; try again."
    return None
