"""Whether something stands between us and PostgreSQL, and whether a session of the server stays ours behind it."""

import uuid
from contextlib import closing

import psycopg

from app.database.postgres_connection import Connector, PostgresConnection
from app.errors import DatabaseUnfit

_ATTEMPTS = 3
"""A pool that is busy meanwhile may hide once what it does; hardly three times."""


def check_pooler(connector: Connector, setting: str, remedy: str) -> str | None:
    """Look for a pooler where the URL of a setting leads; returns a line about one that does no harm, if there is one.

    Raises DatabaseUnfit where one gives each transaction another session and the settings do not say so, with the
    `remedy`; psycopg's OperationalError where the database is out of reach.
    """
    with closing(connector.connect()) as connection:
        # A pooler must give a key of its own by which to cancel: it cannot say what server's session will be used.
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
    """Does what one connection keeps in its session show in another's, or get lost?"""
    mark = uuid.uuid4().hex
    with closing(connector.connect()) as first:
        first.execute("SELECT set_config('detections.mark', %s, false)", (mark,))
        try:
            with closing(connector.connect()) as second:
                second.begin()
                if _mark(second) == mark or _mark(first) != mark:
                    return True
                second.execute("COMMIT")
                return _mark(second) == mark
        except psycopg.OperationalError:  # no session was left for the second, because the first keeps its own
            return False


def _mark(connection: PostgresConnection) -> str | None:
    row = connection.execute("SELECT current_setting('detections.mark', true)").fetchone()
    return None if row is None else row[0]
