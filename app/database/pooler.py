"""Detects poolers between this process and PostgreSQL, and whether they give each transaction another session."""

import uuid
from contextlib import closing

import psycopg

from app.database.postgres_connection import Connector, PostgresConnection
from app.errors import DatabaseUnfit

_ATTEMPTS = 3
_STATEMENTS = 20
"""For each attempt: a busy transaction pooler may return the same session by chance, but hardly for all of them."""


def check_pooler(connector: Connector, setting: str, remedy: str) -> str | None:
    """Check the URL of a setting for a pooler; return a line about a harmless one, None without a pooler.

    Raises DatabaseUnfit, with the `remedy`, if a pooler gives each transaction another session and the settings do not
    say so, and psycopg's OperationalError if the database is unreachable.
    """
    with closing(connector.connect()) as connection:
        # A pooler sends a backend id of its own for cancellation, because it cannot know which session will be used.
        backend = connection.execute("SELECT pg_backend_pid()").fetchone()
        if not connector.own_sessions or backend == (connection.info.backend_pid,):
            return None
        host = f"{connection.info.host}:{connection.info.port}"
    if any(_shares_sessions(connector) for _ in range(_ATTEMPTS)):
        raise DatabaseUnfit(
            f"{setting} leads to a pooler at {host} that gives each transaction another session of the database:"
            f" {remedy}."
        )
    return f"{setting} leads to a pooler at {host}, in which each connection has a session of its own."


def _shares_sessions(connector: Connector) -> bool:
    """Whether a session variable of one connection appears in another's session or is lost."""
    mark = uuid.uuid4().hex
    with closing(connector.connect()) as first:
        first.execute("SELECT set_config('detections.mark', %s, false)", (mark,))
        try:
            with closing(connector.connect()) as second:
                second.begin()
                if _mark(second) == mark or _mark(first) != mark:
                    return True
                second.execute("COMMIT")
                return _mark(second) == mark or any(_mark(first) != mark for _ in range(_STATEMENTS))
        except psycopg.OperationalError:  # the first connection keeps the only session
            return False


def _mark(connection: PostgresConnection) -> str | None:
    row = connection.execute("SELECT current_setting('detections.mark', true)").fetchone()
    return None if row is None else row[0]
