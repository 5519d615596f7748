"""The run of a media item that is being uploaded. An idle detector begins with it before it is recorded.

A picture is detected while its upload is synced and committed. The transaction that records the media item also leases
the run, so there is no second commit between an upload and its run. If that transaction fails, the results are
discarded; if this process dies after it, another process continues the run once its lease has expired.
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
from app.detection.protocol.requests import Job, OpenFile
from app.errors import StorageFailed
from app.runs.claims import ClaimedRun
from app.runs.lifecycle import RunRequest, Runs
from app.storage import open_stored

log = structlog.get_logger()

STOP_POLL_SECONDS = 0.1


class SpeculativeRun:
    """The run of one upload, shared by the request that records it and by the detector that has begun with it.

    `give` hands it to an idle detector of the executor `owner`; it returns False if none is idle. At the end of the
    block, which each side has, the other side stops waiting.
    """

    job: Job
    """The work of the detector, once the run has begun."""
    file: BinaryIO
    """The open picture, which the detector closes."""

    def __init__(self, runs: Runs, wanted: RunRequest, *, owner: str, give: Callable[["SpeculativeRun"], bool]) -> None:
        self._runs = runs
        self._wanted = wanted
        self._owner = owner
        self._give = give
        self._has_begun = False
        self._run_id = 0
        self._lease: ClaimedRun | None = None
        self._recorded: Future[ClaimedRun] = Future()

    def begin(self, media: Media, path: Path) -> None:
        """Let an idle detector begin with a picture that was received to `path`.

        Videos are not begun, because their runs take far longer than what could be saved.
        """
        if media.media_type != "Image":
            return
        try:
            self.file = os.fdopen(open_stored(path, media.size_bytes), "rb")
        except StorageFailed as error:  # the run is queued instead
            log.warning("speculative_run_failed", media_id=media.id, reason=str(error))
            return
        picture = OpenFile(self.file.fileno())
        self.job = Job(picture, "Image", self._wanted.confidence, self._wanted.frame_interval)
        self._has_begun = self._give(self)
        if not self._has_begun:
            self.file.close()

    def record(self, transaction: WriteTransaction, media: Media) -> None:
        """Lease the run in the caller's transaction if a detector has begun, else queue it.

        It may be called again after a transaction that failed.
        """
        if self._has_begun:
            self._run_id, self._lease = self._runs.add_speculative(transaction, media, self._wanted, self._owner)
        else:
            self._run_id, self._lease = self._runs.add(transaction, media.id, self._wanted), None

    def recorded(self) -> int:
        """Let the detector finish the run, because the transaction of `record` is committed. Returns the run's id."""
        if self._lease is not None and self._recorded.set_running_or_notify_cancel():
            self._recorded.set_result(self._lease)
        elif self._lease is not None:  # the detector has stopped waiting
            self._runs.requeue(self._lease, counted=False)
        return self._run_id

    def wait_until_recorded(self, seconds: float, is_stopping: Callable[[], bool]) -> ClaimedRun | None:
        """Wait for `recorded`, for the detector. Returns the leased run.

        Returns None if the run was queued, if its transaction failed, after `seconds`, or if the executor stops.
        """
        until = time.monotonic() + seconds
        while not self._recorded.done() and not is_stopping() and time.monotonic() < until:
            with suppress(TimeoutError, CancelledError):
                self._recorded.result(min(STOP_POLL_SECONDS, seconds))
        return None if self._recorded.cancel() else self._recorded.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._recorded.cancel()  # without effect once it is recorded
