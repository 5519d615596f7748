"""The run of a media that is being uploaded: begun before it is recorded, where a detector is idle, or else queued.

What is begun is leased in the very transaction that records the media, with its status and both messages, so there is
no second commit between an upload and its run. If that transaction fails, the detector is free again; if this process
dies behind it, the run is continued elsewhere once its lease has run out.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from app.database import WriteTransaction
from app.database.models import Media
from app.errors import StorageFailed
from app.runs.claims import ClaimedRun
from app.runs.executor import RunExecutor
from app.runs.lifecycle import RunRequest, Runs
from app.runs.speculative_job import SpeculativeJob
from app.storage import open_stored

log = structlog.get_logger()


class SpeculativeRun:
    """One upload's. At the end of the block a detector that works ahead for nothing is let go."""

    def __init__(self, runs: Runs, executor: RunExecutor, wanted: RunRequest) -> None:
        self._runs = runs
        self._executor = executor
        self._wanted = wanted
        self._speculative_job: SpeculativeJob | None = None
        self._claimed: ClaimedRun | None = None
        self._run_id = 0

    def begin(self, media: Media, file: Path) -> None:
        """The whole of a new media is in that file: look at it, if it is a picture. A video's run takes far longer
        than what could be saved."""
        if media.media_type != "Image":
            return
        try:
            opened = os.fdopen(open_stored(file, media.size_bytes), "rb")
        except StorageFailed as error:  # it can wait until it is recorded
            log.warning("speculative_run_failed", media_id=media.id, reason=str(error))
            return
        self._speculative_job = self._executor.begin_speculative(
            opened, self._wanted.confidence, self._wanted.frame_interval
        )
        if self._speculative_job is None:
            opened.close()

    def record(self, transaction: WriteTransaction, media: Media) -> None:
        """Queue the run in the caller's transaction, or lease it where it has begun. May be called again, after a
        transaction that failed."""
        if self._speculative_job is None:
            self._run_id, self._claimed = self._runs.add(transaction, media.id, self._wanted), None
        else:
            self._run_id, self._claimed = self._runs.add_speculative(
                transaction, media, self._wanted, self._executor.owner
            )

    def recorded(self) -> int:
        """The transaction of the last `record` is committed: the run goes on. Returns its id."""
        if (
            self._claimed is not None
            and self._speculative_job is not None
            and not self._speculative_job.confirm(self._claimed)
        ):
            self._runs.requeue(self._claimed, counted=False)
        return self._run_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._speculative_job is not None:
            self._speculative_job.leave()
