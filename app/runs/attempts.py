"""Executes claimed runs and records how each attempt ended: done, failed, requeued or blocked by a house fault.

Nothing here begins or commits a transaction.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import structlog

from app.database.models import RunFailure
from app.detection.protocol.requests import Job, OpenFile
from app.errors import (
    DetectorFailed,
    DetectorNotReady,
    HouseFault,
    MediaTooLarge,
    SettingsError,
    StorageFailed,
    StorageFull,
    StoredFileUnreadable,
    Unavailable,
    Undecodable,
)
from app.runs.claims import ClaimedRun
from app.runs.detection_breaker import POLL_SECONDS, DetectionBreaker, probe_detector
from app.runs.detector_process import DetectorProcess
from app.runs.house_faults import FaultKind, detector_fault, file_fault
from app.runs.job_runner import JobRunner, RunLost
from app.runs.lifecycle import MAX_ATTEMPTS, Runs
from app.storage import open_stored

log = structlog.get_logger()

RECORDING_ERRORS = (StorageFull, StorageFailed, Unavailable)
"""Errors of a database that cannot store a run's progress."""

MAX_REMEMBERED = 10_000
"""Blocked runs that are remembered, so that each is logged once."""


class RunAttempts:
    """The attempts of one executor.

    A fault of all detection trips `breaker`. `folder_reason(folder)` returns why a media folder is unusable, or None.
    """

    def __init__(
        self,
        runs: Runs,
        job_runner: JobRunner,
        breaker: DetectionBreaker,
        folder_reason: Callable[[Path], str | None],
        stopping: threading.Event,
    ) -> None:
        self._runs = runs
        self._job_runner = job_runner
        self._breaker = breaker
        self._folder_reason = folder_reason
        self._stopping = stopping
        self._logged: dict[int, None] = {}

    def execute(self, process: DetectorProcess, claimed: ClaimedRun, begun: Job | None) -> bool:
        """Execute the run, whose job may have `begun`; return True if it ended, False if it waits or was lost."""
        try:
            with nullcontext(begun) if begun is not None else self._job_of(claimed) as job:
                return self._attempt(process, claimed, job)
        except HouseFault as error:
            self._block(claimed, error, restart=False)
        except StoredFileUnreadable as error:
            self._block(claimed, file_fault(claimed.path, error, self._folder_reason), restart=True)
        except RECORDING_ERRORS as error:
            self._breaker.trip(HouseFault(FaultKind.RESULTS, str(error)))
            self._until_recorded(lambda: self._runs.requeue(claimed, counted=False))
        return False

    def _attempt(self, process: DetectorProcess, claimed: ClaimedRun, job: Job) -> bool:
        try:
            rest = self._job_runner.run(process, claimed, job)
        except Undecodable as error:
            return self._runs.fail(claimed, RunFailure.UNDECODABLE, str(error), skipped=process.skipped)
        except MediaTooLarge as error:
            return self._runs.fail(claimed, RunFailure.TOO_LARGE, str(error), skipped=process.skipped)
        except (DetectorFailed, SettingsError) as error:  # SettingsError: the model cannot be used
            return self._after_failure(process, claimed, error)
        except RunLost:
            log.warning("run_lost", run_id=claimed.run_id, epoch=claimed.epoch)
            return False
        if rest.is_complete:
            return self._runs.finish(claimed, rest.results, skipped=process.skipped, warnings=process.warnings)
        self._runs.pause(claimed, rest.results, rest.position, skipped=process.skipped)
        return False

    def _after_failure(
        self, process: DetectorProcess, claimed: ClaimedRun, error: DetectorFailed | SettingsError
    ) -> bool:
        """Count the attempt against the file if the detector works with another one; otherwise trip the breaker."""
        if self._stopping.is_set():
            self._runs.requeue(claimed, counted=False)
            return False
        never_ready = isinstance(error, DetectorNotReady | SettingsError)
        if not never_ready:
            log.warning("detector_failed", run_id=claimed.run_id, attempts=claimed.attempts, reason=str(error))
        fault = detector_fault(error) if never_ready else probe_detector(process)
        if fault is not None:
            self._breaker.trip(fault, error)
            self._block(claimed, fault, restart=not never_ready)
            return False
        if claimed.attempts >= MAX_ATTEMPTS:
            return self._runs.fail(claimed, RunFailure.DETECTOR, str(error), skipped=process.skipped)
        self._runs.requeue(claimed, counted=True)
        return False

    def _block(self, claimed: ClaimedRun, fault: HouseFault, *, restart: bool) -> None:
        self._log_once(claimed, fault)
        self._until_recorded(lambda: self._runs.block(claimed, fault, restart=restart))

    def _until_recorded(self, record: Callable[[], bool]) -> None:
        """Call `record` until the database takes it. Without that the run would wait for its lease and begin anew."""
        while True:
            try:
                record()
            except RECORDING_ERRORS as error:
                self._breaker.trip(HouseFault(FaultKind.RESULTS, str(error)))
                if self._stopping.wait(max(POLL_SECONDS, self._breaker.seconds_left)):
                    return
            else:
                return

    def _log_once(self, claimed: ClaimedRun, fault: HouseFault) -> None:
        """Log the fault that blocks a run, once in this process."""
        if claimed.run_id not in self._logged:
            self._logged[claimed.run_id] = None
            if len(self._logged) > MAX_REMEMBERED:
                self._logged.pop(next(iter(self._logged)))
            log.error("run_blocked", kind=str(fault.kind), media_id=claimed.media_id, reason=str(fault))

    @contextmanager
    def _job_of(self, claimed: ClaimedRun) -> Iterator[Job]:
        """Yield the run's job with its file open. Raises HouseFault if the file is not the one that was stored."""
        try:
            fd = open_stored(claimed.path, claimed.size_bytes)
        except StorageFailed as error:
            raise file_fault(claimed.path, error, self._folder_reason) from error
        try:
            yield Job(OpenFile(fd), claimed.media_type, claimed.confidence, claimed.frame_interval, claimed.position)
        finally:
            os.close(fd)
