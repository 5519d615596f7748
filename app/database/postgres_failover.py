"""Detects that another PostgreSQL server has taken over: a promoted standby or a restored copy.

An asynchronous standby may lack the last commits when it is promoted. The database would then use sequence numbers
again, so it begins a new epoch (`app.database.history`) before it is used. The server's system identifier and timeline
tell: every promotion and every restored copy begins another timeline. Each new connection compares them with those that
the database was last used with, and the first one to differ begins the epoch in the same statement.
"""

from typing import Any

import psycopg
import structlog
from psycopg import errors

log = structlog.get_logger()

AFTER_RESTORE = ("flask outbox verify --remote", "flask outbox resend --missing", "flask media verify")
"""The commands for a person to run after a database was restored or may have lost its last commits."""

_TAKE_OVER = b"""
UPDATE database_instance SET server_history = server.history,
  epoch = epoch + CASE WHEN server_history IS NULL THEN 0 ELSE 1 END,
  counter = counter + CASE WHEN server_history IS NULL THEN 0 ELSE 1 END,
  restored_at = CASE WHEN server_history IS NULL THEN restored_at
                ELSE EXTRACT(EPOCH FROM clock_timestamp())::double precision END
FROM (SELECT before.server_history AS before,
             system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS history
      FROM pg_control_system(), database_instance AS before) AS server
WHERE server_history IS DISTINCT FROM server.history
RETURNING epoch, server.before, server.history
"""


def detect_failover(connection: psycopg.Connection[Any]) -> None:
    """Begin a new epoch if another server has taken over, and log it.

    Does nothing on a standby, on a server that hides its history, and before the first migration and start; the first
    statement on the connection reports those.
    """
    try:
        row = connection.execute(_TAKE_OVER, prepare=False).fetchone()
    except (errors.InternalError, errors.NotSupportedError, errors.ProgrammingError, errors.LockNotAvailable):
        return
    if row is None or row[1] is None:
        return
    epoch, before, history = row
    log.error(
        "database_failed_over",
        detail="Another database server has taken over, perhaps without the last commits. Messages continue in epoch "
        f"{epoch}. Run: {'; '.join(AFTER_RESTORE)}.",
        epoch=epoch,
        before=before,
        now=history,
    )
