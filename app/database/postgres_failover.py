"""Notices that another PostgreSQL server goes on with the database: a standby that was promoted, a copy put back.

A standby that follows without being waited for may lack the last moments when it is promoted. The database then goes on
with sequence numbers that the annotations service has seen on other messages, so it must do that in a new epoch
(`app.database.history`), and before anything else is done with it. What tells is the server's history: its system
identifier, and its timeline, which is another one after each promotion and each restored copy. Each new connection
compares it with the one that the database was last used with; whoever is first begins the epoch, in the same statement.
"""

from typing import Any

import psycopg
import structlog
from psycopg import errors

log = structlog.get_logger()

AFTER_RESTORE = ("flask outbox verify --remote", "flask outbox resend --missing", "flask media verify")
"""What a person runs once a database was restored from a copy, or may have lost its last moments."""

_GO_ON = b"""
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
    """Begin a new epoch where another server goes on, and say so in one line.

    Does nothing where the server is a standby or does not tell its history, and before the database's first start or
    migration: who uses the connection is told of those.
    """
    try:
        row = connection.execute(_GO_ON, prepare=False).fetchone()
    except (errors.InternalError, errors.NotSupportedError, errors.ProgrammingError, errors.LockNotAvailable):
        return
    if row is None or row[1] is None:
        return
    epoch, before, history = row
    log.error(
        "database_failed_over",
        detail="Another database server goes on, perhaps without the last moments of the one before. Messages go on in "
        f"epoch {epoch}. Run: {'; '.join(AFTER_RESTORE)}.",
        epoch=epoch,
        before=before,
        now=history,
    )
