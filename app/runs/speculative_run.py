"""The run of a media item that is being uploaded: begun before it is recorded, where a detector is idle, else queued.

A picture is looked at in the time that its upload takes to be synced and committed. What is begun is leased in the very
transaction that records the item, with its status and both messages, so there is no second commit between an upload
and its run. If that transaction fails, what was found is forgotten; if this process dies behind it, another continues
the run once its lease has ended.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

import structlog

from app.database import WriteTransaction
from app.database.models import Media
from app.detection.jobs import Job, OpenFile
from app.errors import StorageFailed
from app.runs.claims import ClaimedRun
from app.runs.lifecycle import RunRequest, Runs
from app.storage import open_stored

log = structlog.get_logger()

POLL_SECONDS = 0.1


class SpeculativeRun:
    """One upload's, between the request that records it and the detector that has begun; each may leave the other.

    `give` hands it to an idle detector of the executor `owner`, and returns False where none is idle. At the end of the
    block a detector that works for nothing is let go.
    """

    job: Job
    """What the detector does, and its picture, which the detector closes."""
    file: BinaryIO

    def __init__(self, runs: Runs, wanted: RunRequest, *, owner: str, give: Callable[["SpeculativeRun"], bool]) -> None:
        self._runs = runs
        self._wanted = wanted
        self._owner = owner
        self._give = give
        self._has_begun = False
        self._recorded: tuple[int, ClaimedRun | None] = (0, None)
        self._confirmed: Future[ClaimedRun] = Future()

    def begin(self, media: Media, file: Path) -> None:
        """The whole of a new item is in that file: look at it, if it is a picture. A video's run takes far longer than
        what could be saved."""
        if media.media_type != "Image":
            return
        try:
            self.file = os.fdopen(open_stored(file, media.size_bytes), "rb")
        except StorageFailed as error:  # it can wait until it is recorded
            log.warning("speculative_run_failed", media_id=media.id, reason=str(error))
            return
        opened = OpenFile(self.file.fileno())
        self.job = Job(opened, "Image", self._wanted.confidence, self._wanted.frame_interval)
        self._has_begun = self._give(self)
        if not self._has_begun:
            self.file.close()

    def record(self, transaction: WriteTransaction, media: Media) -> None:
        """Queue the run in the caller's transaction, or lease it where it has begun. May be called again, after a
        transaction that failed."""
        if self._has_begun:
            self._recorded = self._runs.add_begun(transaction, media, self._wanted, self._owner)
        else:
            self._recorded = self._runs.add(transaction, media.id, self._wanted), None

    def recorded(self) -> int:
        """The transaction of the last `record` is committed: the run goes on. Returns its id."""
        run_id, claimed = self._recorded
        if claimed is not None and self._confirmed.set_running_or_notify_cancel():
            self._confirmed.set_result(claimed)
        elif claimed is not None:  # the detector has left
            self._runs.hand_back(claimed, counted=False)
        return run_id

    def claimed(self, seconds: float, is_stopping: Callable[[], bool]) -> ClaimedRun | None:
        """For the detector: the run, once it is recorded; None where there is none for us, or none within so many
        seconds, or before the executor stops."""
        until = time.monotonic() + seconds
        while not self._confirmed.done() and not is_stopping() and time.monotonic() < until:
            with suppress(TimeoutError, CancelledError):
                self._confirmed.result(min(POLL_SECONDS, seconds))
        return None if self._confirmed.cancel() else self._confirmed.result()

    def leave(self) -> None:
        """Nobody is to wait for this side any more. Without effect once the run is confirmed."""
        self._confirmed.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.leave()
