"""Notices what other processes commit, so that a dispatcher need not wait for its next look.

On SQLite the file's data version is asked for, which reads shared memory and writes nothing; on PostgreSQL the
process listens. A missed wake-up only costs time: the dispatcher looks by itself now and then.
"""

import sqlite3
from collections.abc import Callable

import psycopg
import structlog
from sqlalchemy.exc import DBAPIError

from app.background import BackgroundWork
from app.db import PG_CHANNEL, Database

log = structlog.get_logger()

LOOK_EVERY = 0.01
"""Seconds between two looks at SQLite's data version: half of it is what a message waits on average."""

LISTEN_FOR = 0.5
AFTER_TROUBLE = 1.0


class ChangeWatcher(BackgroundWork):
    """Calls `on_change` soon after any process has committed to the database."""

    def __init__(self, database: Database, on_change: Callable[[], None]) -> None:
        super().__init__("change-watcher", pause=AFTER_TROUBLE)
        self._database = database
        self._on_change = on_change

    def work(self) -> None:
        """Watch until stopped, or until the database is out of reach."""
        watch = self._watch_file if self._database.is_sqlite else self._listen
        try:
            watch()
        except (sqlite3.Error, psycopg.Error, DBAPIError) as error:  # the dispatcher goes on without: slower, not wrong
            log.warning("change_watcher_interrupted", error=str(error))

    def _watch_file(self) -> None:
        pooled = self._database.engine.raw_connection()
        try:
            cursor = pooled.cursor()
            seen = None
            while not self._stopping.wait(LOOK_EVERY):
                version = cursor.execute("PRAGMA data_version").fetchone()
                if version != seen:
                    seen = version
                    self._on_change()
        finally:
            pooled.close()

    def _listen(self) -> None:
        url = self._database.url.set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(f"LISTEN {PG_CHANNEL}")
            self._on_change()
            while not self._stopping.is_set():
                for _notification in connection.notifies(timeout=LISTEN_FOR, stop_after=1):
                    self._on_change()
