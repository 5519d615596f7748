"""Whether a database can be written, found out by writing to it, without a commit that others would notice.

Nothing here commits a transaction.
"""

import os
from errno import EDQUOT, ENOSPC
from pathlib import Path

from sqlalchemy import Connection, text

SMALL_CACHE_PAGES = 4
USUAL_CACHE = -2000  # KiB
PROBE_BYTES = 1 << 16

_NO_ROOM = (ENOSPC, EDQUOT)


def write_uncommitted(connection: Connection) -> None:
    """Have the database's log written to, in the caller's transaction, which is to be rolled back.

    SQLite writes pages to its log before a commit where its cache is too small for them; PostgreSQL writes a record.
    Raises what the driver does.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_logical_emit_message(true, 'detections', 'write probe')"))
        return
    connection.exec_driver_sql(f"PRAGMA cache_size={SMALL_CACHE_PAGES}")
    try:
        connection.exec_driver_sql("CREATE TABLE write_probe (content BLOB)")
        connection.exec_driver_sql("INSERT INTO write_probe VALUES (zeroblob(?))", (PROBE_BYTES,))
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size={USUAL_CACHE}")


def has_disk_space(folder: Path) -> bool:
    """Whether a file in the folder can grow; True also where that cannot be tried."""
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
