"""Group commit: published files that wait at the same time share one folder sync and one commit.

SQLite allows one writer at a time, and each commit waits for the disk. One thread therefore takes all waiting files,
syncs their folders and commits their rows in one transaction. Each caller returns once its own row is durable or its
own commit failed; a row that cannot be committed does not affect the others. PostgreSQL commits concurrently and shares
syncs itself, so there each caller commits alone.

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
    """The commit failed and may or may not have succeeded; `__cause__` is the error."""


@dataclass(frozen=True, slots=True)
class PendingMedia:
    """A media item whose file is published in `folder`, waiting to be committed."""

    media: Media
    folder: Path
    request_id: str | None
    in_transaction: InTransaction


@dataclass(frozen=True, slots=True)
class _Waiter:
    """A waiting media item and its result. `since` is a time on the monotonic clock."""

    pending: PendingMedia
    since: float = field(default_factory=time.monotonic)
    result: "Future[None]" = field(default_factory=Future)

    def finish(self, error: BaseException | None) -> None:
        if error is None:
            self.result.set_result(None)
        else:
            self.result.set_exception(error)


class GroupCommit:
    """Commits media items for all threads of a process."""

    def __init__(self, database: Database, queue: OutboxQueue) -> None:
        self._database = database
        self._queue = queue
        self._now = select(database.now)
        self._guard = threading.Lock()
        self._waiting: list[_Waiter] = []
        self._is_writing = False
        # The thread starts with the first item and ends with this object.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="group-commit")

    def record(self, pending: PendingMedia) -> None:
        """Make the folder's names durable, then the row, and return. Sets `created_at` of the media item.

        Raises CommitUnknown if the commit may have succeeded. After any other error nothing is recorded: IntegrityError
        if the id exists, StorageFull, StorageFailed, Unavailable, or what `in_transaction` raises.
        """
        waiter = _Waiter(pending)
        try:
            error = self._commit_in_group(waiter) if self._database.is_sqlite else self._commit_alone(waiter)
        except BaseException as interruption:  # raised by a signal handler; the commit's progress is unknown
            raise CommitUnknown from interruption
        if error is not None:
            raise error

    def add(self, transaction: WriteTransaction, pending_media: Sequence[PendingMedia]) -> None:
        """Add the rows to the caller's transaction."""
        now = transaction.core.scalars(self._now).one()
        for pending in pending_media:
            pending.media.created_at = now
        create_all(
            transaction, self._queue, [NewMedia(pending.media, pending.request_id) for pending in pending_media], now
        )
        for pending in pending_media:
            pending.in_transaction(transaction, pending.media)

    def _commit_alone(self, waiter: _Waiter) -> BaseException | None:
        self._commit_group([waiter])
        return waiter.result.exception()

    def _commit_in_group(self, waiter: _Waiter) -> BaseException | None:
        with self._guard:
            self._waiting.append(waiter)
            start, self._is_writing = not self._is_writing, True
        if start:
            self._writer.submit(self._commit_waiting)
        try:
            return waiter.result.exception()
        except BaseException:
            if not waiter.result.cancel():  # the file must stay locked during the commit
                waiter.result.exception()
            raise

    def _commit_waiting(self) -> None:
        """Commit the waiting items, group by group, until none waits."""
        while group := self._take_waiting():
            group = [waiter for waiter in group if waiter.result.set_running_or_notify_cancel()]
            try:
                self._commit_group(group)
            except BaseException as error:  # noqa: BLE001 (each caller raises it again)
                for waiter in group:
                    if not waiter.result.done():
                        waiter.finish(_unknown(error))

    def _take_waiting(self) -> list[_Waiter]:
        with self._guard:
            group, self._waiting = self._waiting, []
            self._is_writing = bool(group)
        return group

    def _commit_group(self, group: Sequence[_Waiter]) -> None:
        ready = _sync_folders(group)
        if not ready:
            return
        error, applies_to_all = self._commit(ready, waiting_since=min(waiter.since for waiter in ready))
        for waiter in ready:
            if not applies_to_all:  # one item may have caused the failure, so commit each alone
                error, _ = self._commit([waiter])
                applies_to_all = isinstance(error, Unavailable)
            waiter.finish(error)

    def _commit(
        self, group: Sequence[_Waiter], waiting_since: float | None = None
    ) -> tuple[BaseException | None, bool]:
        """Commit the group in one transaction. Return the error, if any, and whether it applies to each item.

        An IntegrityError or a full disk means that nothing was committed.
        """
        begun = committing = False
        try:
            with self._database.write_transaction(waiting_since=waiting_since) as transaction:
                begun = True
                self.add(transaction, [waiter.pending for waiter in group])
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


def _sync_folders(group: Sequence[_Waiter]) -> list[_Waiter]:
    """Return the items whose names are durable: one sync covers all names created before it."""
    synced: set[Path] = set()
    for folder in {waiter.pending.folder for waiter in group}:
        try:
            sync_folder(folder)
        except DetectionsError as error:
            for waiter in group:
                if waiter.pending.folder == folder:
                    waiter.finish(error)
        else:
            synced.add(folder)
    return [waiter for waiter in group if waiter.pending.folder in synced]
