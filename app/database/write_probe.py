"""Probes whether a database is writable, by writing without a commit. Nothing here commits a transaction."""

import os
from errno import EDQUOT, ENOSPC
from pathlib import Path

from sqlalchemy import Connection, text

SMALL_CACHE_PAGES = 4
DEFAULT_CACHE = -2000  # KiB
PROBE_BYTES = 1 << 16

_NO_ROOM = (ENOSPC, EDQUOT)


def write_uncommitted(connection: Connection) -> None:
    """Write to the database's log in the caller's transaction, which is then rolled back. Raises the driver's errors.

    SQLite writes pages to its log before the commit if its cache is too small for them; PostgreSQL writes a record.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_logical_emit_message(true, 'detections', 'write probe')"))
        return
    connection.exec_driver_sql(f"PRAGMA cache_size={SMALL_CACHE_PAGES}")
    try:
        connection.exec_driver_sql("CREATE TABLE write_probe (content BLOB)")
        connection.exec_driver_sql("INSERT INTO write_probe VALUES (zeroblob(?))", (PROBE_BYTES,))
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size={DEFAULT_CACHE}")


def has_disk_space(folder: Path) -> bool:
    """Whether a file in the folder can grow; True if that cannot be tried."""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return error.errno not in _NO_ROOM
    try:
        os.pwrite(fd, bytes(PROBE_BYTES), 0)
    except OSError as error:
        return error.errno not in _NO_ROOM
    finally:
        os.close(fd)
    return True
