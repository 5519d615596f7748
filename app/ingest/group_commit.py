"""Group commit: published files that wait at the same time share one sync of their folder and one commit.

SQLite lets in one writer at a time, and each commit waits for the disk. So one thread records for all: it takes every
recording that waits, syncs their folders and commits their rows in one transaction. Each caller returns only once its
own row is durable, and learns its own outcome: where one cannot be recorded, the others of its group are recorded
without it. PostgreSQL lets commits in together and shares their syncs by itself, so there each caller commits its own.
This module begins transactions.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.database import Database, WriteTransaction
from app.database.models import Media
from app.errors import DetectionsError, StorageFull, Unavailable
from app.media.status import NewMedia, create_all
from app.outbox.queue import OutboxQueue
from app.storage import sync_folder

InTransaction = Callable[[WriteTransaction, Media], object]
"""Adds to the transaction that records a media item."""


class CommitUnknown(Exception):
    """The commit failed in a way that does not tell whether it came true; its cause says how."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A media item whose file is published under its final name, in `folder`: what is to be committed for it."""

    media: Media
    folder: Path
    request_id: str | None
    in_transaction: InTransaction


@dataclass(frozen=True, slots=True)
class _Entry:
    """A recording that waits, since when on the monotonic clock, and its outcome: an error, or none once committed."""

    recording: Recording
    since: float = field(default_factory=time.monotonic)
    outcome: "Future[None]" = field(default_factory=Future)

    def finish(self, error: BaseException | None) -> None:
        if error is None:
            self.outcome.set_result(None)
        else:
            self.outcome.set_exception(error)


class Recorder:
    """Commits recordings, for all threads of a process."""

    def __init__(self, database: Database, queue: OutboxQueue) -> None:
        self._database = database
        self._queue = queue
        self._now = select(database.now)
        self._guard = threading.Lock()
        self._waiting: list[_Entry] = []
        self._is_writing = False
        # The one thread begins with the first recording, and ends with this object.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="group-commit")

    def record(self, recording: Recording) -> None:
        """Make the folder's names durable, then the rows; returns once both are. The media item gets its `created_at`.

        Raises CommitUnknown where nobody can tell; after any other error nothing is recorded: IntegrityError where
        the id is taken, StorageFull, StorageFailed, Unavailable, and whatever the recording's `in_transaction` raises.
        """
        entry = _Entry(recording)
        try:
            error = self._record_in_group(entry) if self._database.is_sqlite else self._record_alone(entry)
        except BaseException as interruption:  # a signal's: how far it came is not looked into
            raise CommitUnknown from interruption
        if error is not None:
            raise error

    def add(self, transaction: WriteTransaction, recordings: Sequence[Recording]) -> None:
        """Add the rows of recordings, in the caller's transaction."""
        now = transaction.core.scalars(self._now).one()
        for one in recordings:
            one.media.created_at = now
        create_all(transaction, self._queue, [NewMedia(one.media, one.request_id) for one in recordings], now)
        for one in recordings:
            one.in_transaction(transaction, one.media)

    def _record_alone(self, entry: _Entry) -> BaseException | None:
        self._record([entry])
        return entry.outcome.exception()

    def _record_in_group(self, entry: _Entry) -> BaseException | None:
        with self._guard:
            self._waiting.append(entry)
            begin, self._is_writing = not self._is_writing, True
        if begin:
            self._writer.submit(self._record_waiting)
        try:
            return entry.outcome.exception()
        except BaseException:
            if not entry.outcome.cancel():  # while the thread records it, its file must stay locked
                entry.outcome.exception()
            raise

    def _record_waiting(self) -> None:
        """Record those that wait, group by group, until none does."""
        while group := self._take_waiting():
            group = [entry for entry in group if entry.outcome.set_running_or_notify_cancel()]
            try:
                self._record(group)
            except BaseException as error:  # noqa: BLE001 (each caller raises it again)
                for entry in group:
                    if not entry.outcome.done():
                        entry.finish(_unknown(error))

    def _take_waiting(self) -> list[_Entry]:
        with self._guard:
            group, self._waiting = self._waiting, []
            self._is_writing = bool(group)
        return group

    def _record(self, group: Sequence[_Entry]) -> None:
        ready = _with_synced_folders(group)
        if not ready:
            return
        error, concerns_all = self._commit(ready, waiting_since=min(entry.since for entry in ready))
        for entry in ready:
            if not concerns_all:  # what failed may be one recording's own: each is tried alone
                error, _ = self._commit([entry])
                concerns_all = isinstance(error, Unavailable)
            entry.finish(error)

    def _commit(self, group: Sequence[_Entry], waiting_since: float | None = None) -> tuple[BaseException | None, bool]:
        """Commit them in one transaction; returns the error, if there is one, and whether it is each entry's outcome.

        An IntegrityError and a full disk say for sure that a commit did not happen.
        """
        begun = committing = False
        try:
            with self._database.write_transaction(waiting_since=waiting_since) as transaction:
                begun = True
                self.add(transaction, [entry.recording for entry in group])
                committing = True
        except Exception as error:  # noqa: BLE001 (each caller raises it again)
            if committing and not isinstance(error, IntegrityError | StorageFull):
                return _unknown(error), True
            return error, not begun or len(group) == 1
        return None, True


def _unknown(error: BaseException) -> CommitUnknown:
    unknown = CommitUnknown()
    unknown.__cause__ = error
    return unknown


def _with_synced_folders(group: Sequence[_Entry]) -> list[_Entry]:
    """Those whose names are durable: one sync that begins after all of them were given covers them all."""
    synced: set[Path] = set()
    for folder in {entry.recording.folder for entry in group}:
        try:
            sync_folder(folder)
        except DetectionsError as error:
            for entry in group:
                if entry.recording.folder == folder:
                    entry.finish(error)
        else:
            synced.add(folder)
    return [entry for entry in group if entry.recording.folder in synced]
