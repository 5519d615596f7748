"""Keeps the media folders' markers within seconds of the database."""

import threading
from contextlib import suppress

from sqlalchemy.exc import DBAPIError

from app.database import Database, Topic
from app.errors import DetectionsError
from app.process.background import BackgroundWork
from app.storage.folder_ownership import FolderOwnership

ADVANCE_SECONDS = 3.0


class MarkerWriter(BackgroundWork):
    """Advances the markers after this process has committed messages: every few seconds, at its start and end."""

    def __init__(self, database: Database, folders: FolderOwnership, *, every: float = ADVANCE_SECONDS) -> None:
        super().__init__("marker-writer", pause=every)
        self._database = database
        self._folders = folders
        self._committed = threading.Event()
        self._committed.set()  # a process killed before may have committed messages
        database.subscribe(Topic.MESSAGES, self._committed.set)

    def work(self) -> None:
        """Check the folders and the database's file, and advance the markers if messages were committed.

        If the database is unavailable, the next round tries again; /readyz and the log report that anyway.
        """
        with suppress(DetectionsError, DBAPIError):
            if not self._database.admit_replacement(self._folders.open):
                self._database.ensure_usable()
            if not self._folders.are_open:
                self._folders.open()
            for folder in self._folders.paths:
                self._folders.unusable_reason(folder)
            if self._committed.is_set():
                self._advance()

    def stop(self) -> None:
        """Stop after the last committed messages were counted; an unavailable database is not waited for."""
        super().stop()
        self.work()

    def _advance(self) -> None:
        self._committed.clear()
        try:
            self._folders.advance_counter()
        except BaseException:
            self._committed.set()
            raise
