"""Watches for commits of other processes, so that a dispatcher or executor need not wait for its next poll.

On SQLite it polls the file's data version, which reads shared memory only. On PostgreSQL it listens on a connection of
its own, or wakes the listener every POLL_SECONDS behind a transaction pooler, where LISTEN does not work. A missed
notification only costs time, because dispatchers and executors also poll.
"""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

import psycopg
from sqlalchemy.exc import DBAPIError

from app.database import Database
from app.database.postgres_connection import PostgresConnection
from app.errors import DatabaseUnfit
from app.process.background import BackgroundWork
from app.process.failure_log import FailureLog

DATA_VERSION_POLL_SECONDS = 0.01
"""Time between two reads of SQLite's data version; a message waits for half of it on average."""

IDLE_POLL_SECONDS = 0.075
QUIET_SECONDS = 60.0
"""After this long without a commit the watcher polls every IDLE_POLL_SECONDS, and truncates SQLite's log once."""

LISTEN_SECONDS = 0.5
"""Longest wait for a notification before the watcher checks whether it is to stop."""

SILENT_SECONDS = 10.0
"""After this long without a notification the watcher checks that the server still answers."""

POLL_SECONDS = 0.5
"""Time between two wake-ups if the process cannot listen; a message waits for half of it on average."""

RETRY_SECONDS = 1.0


class ChangeWatcher(BackgroundWork):
    """Calls `on_change` soon after any process has committed to the database."""

    def __init__(
        self,
        database: Database,
        on_change: Callable[[], None],
        *,
        silent_seconds: float = SILENT_SECONDS,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        super().__init__("change-watcher", pause=RETRY_SECONDS)
        self._silent_seconds = silent_seconds
        self._database = database
        self._on_change = on_change
        self._quiet_seconds = quiet_seconds
        self._interruptions = FailureLog("change_watcher_interrupted")

    def work(self) -> None:
        """Watch until stopped, or until the database is unreachable."""
        watch = self._watch_file if self._database.is_sqlite else self._watch_server
        try:
            watch()
        except (sqlite3.Error, psycopg.Error, DBAPIError, DatabaseUnfit) as error:  # until then, polling suffices
            self._interruptions.failed(error, expected=True)

    def _watch_file(self) -> None:
        pooled = self._database.reader.raw_connection()
        try:
            cursor = pooled.cursor()
            seen, pace, changed_at = None, DATA_VERSION_POLL_SECONDS, time.monotonic()
            while not self._stopping.wait(pace):
                self._database.check_file(pooled.driver_connection)
                version = cursor.execute("PRAGMA data_version").fetchone()
                if version != seen:
                    seen, pace, changed_at = version, DATA_VERSION_POLL_SECONDS, time.monotonic()
                    self._on_change()
                elif pace != IDLE_POLL_SECONDS and time.monotonic() - changed_at >= self._quiet_seconds:
                    pace = IDLE_POLL_SECONDS
                    if self._database.truncate_log():  # changes the data version as a commit does
                        seen = cursor.execute("PRAGMA data_version").fetchone()
                        self._on_change()
        finally:
            pooled.close()

    def _watch_server(self) -> None:
        connection = self._database.listen()
        if connection is None:
            while not self._stopping.wait(POLL_SECONDS):
                self._on_change()
            return
        with closing(connection):
            self._listen(connection)

    def _listen(self, connection: PostgresConnection) -> None:
        self._on_change()
        heard = time.monotonic()
        while not self._stopping.is_set():
            for _notification in connection.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                heard = time.monotonic()
                self._on_change()
            if time.monotonic() - heard >= self._silent_seconds:
                connection.execute("SELECT 1")
                heard = time.monotonic()
