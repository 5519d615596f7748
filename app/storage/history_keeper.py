"""Keeps the media folders' markers within seconds of the database: one small commit for all that came meanwhile."""

import threading
from contextlib import suppress

from sqlalchemy.exc import DBAPIError

from app.database import Database, Topic
from app.errors import DetectionsError
from app.process.background import BackgroundWork
from app.storage.media_folders import MediaFolders

ADVANCE_SECONDS = 3.0


class HistoryKeeper(BackgroundWork):
    """Counts on after this process has committed messages, every few seconds at most, at its start and at its end."""

    def __init__(self, database: Database, folders: MediaFolders, *, every: float = ADVANCE_SECONDS) -> None:
        super().__init__("history-keeper", pause=every)
        self._database = database
        self._folders = folders
        self._committed = threading.Event()
        self._committed.set()  # whoever ended without a word before may have committed something
        database.subscribe(Topic.MESSAGES, self._committed.set)

    def work(self) -> None:
        """Look at every folder and at the database's file, and count on, if anything was committed since the last time.

        A database that is away is tried again at the next round: /readyz and the log tell of it without this.
        """
        with suppress(DetectionsError, DBAPIError):
            if not self._database.admit_replacement(self._folders.open):
                self._database.ensure_usable()
            if not self._folders.are_open:
                self._folders.open()
            for folder in self._folders.paths:
                self._folders.unusable_reason(folder)
            if self._committed.is_set():
                self._count_on()

    def stop(self) -> None:
        """Return once what was committed last is counted; a database that is away is not waited for."""
        super().stop()
        self.work()

    def _count_on(self) -> None:
        self._committed.clear()
        try:
            self._folders.count_on()
        except BaseException:
            self._committed.set()
            raise
