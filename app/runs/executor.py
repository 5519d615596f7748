"""Executes runs in threads, each with a detector process of its own.

- The threads claim waiting runs from the database, so a run survives the process that accepted it.
- An idle thread may begin with a picture that is still being recorded; its results count once the run is committed.
- A heartbeat thread renews the leases of the runs under way. A run whose lease was lost is dropped at its next frame.
- A video yields to another user who waits and has no run under way, and continues later.
- A house fault blocks a run (`app.runs.house_faults`). While detection does not work, one thread probes and the others
  wait (`app.runs.detection_breaker`).
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

import structlog

from app.database.lease import HEARTBEATS, new_owner
from app.detection.protocol.requests import Job
from app.detection.results import FrameResult
from app.detection.sandbox.policy import Sandbox
from app.errors import (
    DetectionsError,
    DetectorFailed,
    DetectorNotReady,
    HouseFault,
    SettingsError,
    Unavailable,
)
from app.process.background import Background
from app.process.failure_log import FailureLog
from app.runs.attempts import RECORDING_ERRORS, RunAttempts
from app.runs.claims import ClaimedRun
from app.runs.detection_breaker import DetectionBreaker, may_work
from app.runs.detector_process import DetectorProcess
from app.runs.house_faults import FaultKind, detector_fault
from app.runs.idle_detectors import IdleDetectors
from app.runs.in_memory import BoundedQueue, JobResult, WaitingJob
from app.runs.job_runner import JobRunner
from app.runs.lifecycle import Runs
from app.runs.speculative_run import SpeculativeRun

log = structlog.get_logger()

POLL_SECONDS = 1.0
"""How often an idle thread checks for work without being woken."""

STOP_SECONDS = 5.0
"""How long `stop` waits for runs to pause before it ends their processes."""

SPECULATIVE_SECONDS = 5.0
"""How long a detector waits for a speculative run to be recorded before it turns to other work."""

MAX_BOXES = 1_000_000
"""Objects that one run may find."""

WAITING_IN_MEMORY = 4
"""In-memory jobs that may wait for each detector process."""


_Work = Callable[[DetectorProcess], bool]
"""Does one piece of work if there is any; returns whether there was."""


class RunExecutor(Background):
    """Executes up to `workers` runs at once.

    `on_released(run_id, has_ended)` is called when this process stops working on a run; `has_ended` says whether it
    ended the run. `folder_reason(folder)` returns why a media folder is unusable, or None.
    """

    def __init__(
        self,
        runs: Runs,
        make_process: Callable[[], DetectorProcess],
        *,
        workers: int,
        on_released: Callable[[int, bool], None] = lambda _run_id, _ended: None,
        speculative_seconds: float = SPECULATIVE_SECONDS,
        max_boxes: int = MAX_BOXES,
        folder_reason: Callable[[Path], str | None] = lambda _folder: None,
        breaker: DetectionBreaker | None = None,
    ) -> None:
        super().__init__()
        self._runs = runs
        self._make_process = make_process
        self._on_released = on_released
        self.breaker = breaker or DetectionBreaker()
        self._speculative_seconds = speculative_seconds
        self.owner = new_owner()
        self._failures = FailureLog("run_worker_failed")
        self._renewal_failures = FailureLog("lease_not_renewed")
        self._idle = IdleDetectors()
        self._workers = workers
        self._in_memory = BoundedQueue(WAITING_IN_MEMORY * workers)
        job_runner = JobRunner(runs, self._stopping.is_set, self._in_memory.has_jobs_of_others, max_boxes)
        self._attempts = RunAttempts(runs, job_runner, self.breaker, folder_reason, self._stopping)
        self._under_way: set[ClaimedRun] = set()
        self._processes: list[DetectorProcess] = []

    def share(self, processes: int) -> None:
        """Take this process's share of the workers, at least one, among `processes`; to be called before `start`."""
        self._workers = -(-self._workers // processes)
        self._in_memory.capacity = WAITING_IN_MEMORY * self._workers

    def stop(self) -> None:
        """Pause or requeue the runs under way, end the processes, and fail the in-memory jobs that still wait."""
        self._interrupt()
        self._join(STOP_SECONDS)
        for process in self._processes:
            process.close()
        self._join()
        while waiting := self._in_memory.take():
            if waiting.result.set_running_or_notify_cancel():
                waiting.result.set_exception(_shutting_down())
            waiting.close()

    def _targets(self) -> Mapping[str, Callable[[], None]]:
        workers = {f"run-worker-{number}": self._work for number in range(self._workers)}
        return {**workers, "run-heartbeat": self._renew}

    def _interrupt(self) -> None:
        super()._interrupt()
        self._idle.call()

    def wake(self) -> None:
        """Check for work now, because a run was queued."""
        self._idle.call()

    @property
    def idle(self) -> int:
        """How many detectors are idle; each has found within the last POLL_SECONDS that nothing waits."""
        return len(self._idle)

    @property
    def sandbox(self) -> Sandbox | None:
        """The sandbox of the detectors, as one of them reported it; None before one was started."""
        return next((process.sandbox for process in self._processes if process.sandbox), None)

    def begin_speculative(self, run: SpeculativeRun) -> bool:
        """Let an idle detector begin with a picture whose run is about to be recorded.

        Returns False if no detector is idle or other work may be waiting.
        """
        return self.breaker.fault is None and not self._stopping.is_set() and self._idle.give(run)

    def ensure_capacity(self, user: str) -> None:
        """Raise Unavailable if `detect` would refuse a job of this user; to be called before a picture is received."""
        if self._stopping.is_set():
            raise _shutting_down()
        if self.breaker.fault is not None:
            raise self.breaker.fault
        self._in_memory.ensure_capacity(user)

    def detect(self, job: Job, timeout: float, *, user: str) -> JobResult:
        """Run an in-memory job for a client that waits up to `timeout` seconds.

        Raises Unavailable if too many jobs wait, if no detector is free in time or during shutdown, HouseFault if
        detection does not work, and what `DetectorProcess.run` raises.
        """
        if self._stopping.is_set():
            raise _shutting_down()
        waiting = WaitingJob(job)
        try:
            self._in_memory.put(user, waiting)
        except Unavailable:
            waiting.close()
            raise
        self.wake()
        try:
            return waiting.result.result(timeout)
        except TimeoutError as error:
            waiting.result.cancel()
            raise Unavailable("No detector came free in time; try again.", retry_after=5) from error

    def _work(self) -> None:
        with closing(self._make_process()) as process:
            self._processes.append(process)
            turns: list[_Work] = [self._answer_in_memory, self._do_one_run]
            while not self._stopping.is_set():
                if not may_work(self.breaker, process, self._stopping):
                    continue
                seen = self._idle.calls
                try:
                    worked = _take_turn(turns, process)
                    self.breaker.reset(FaultKind.RESULTS)
                    while not worked and (speculative_run := self._idle.wait(seen, POLL_SECONDS)):
                        self._execute_speculative(process, speculative_run)
                        worked = self.breaker.fault is not None
                except RECORDING_ERRORS as error:
                    self.breaker.trip(HouseFault(FaultKind.RESULTS, str(error)))
                except Exception as error:  # noqa: BLE001 (the next turn may succeed)
                    self._failures.failed(error)
                    self._stopping.wait(POLL_SECONDS)  # wake-ups do not shorten this pause

    def _execute_speculative(self, process: DetectorProcess, run: SpeculativeRun) -> None:
        job: Job | None = run.job
        with run, run.file:
            try:
                process.begin(run.job)
            except DetectorFailed as error:  # the recorded run begins the job again, and that attempt counts
                log.warning("speculative_run_failed", reason=str(error))
                job = None
            claimed = run.wait_until_recorded(self._speculative_seconds, self._stopping.is_set)
        if claimed is not None:
            self._do(process, claimed, job)
        elif job is not None and not self._stopping.is_set():
            with suppress(DetectionsError):  # the upload was not recorded, so the result is discarded
                deque(process.run(job), maxlen=0)

    def _answer_in_memory(self, process: DetectorProcess) -> bool:
        waiting = self._in_memory.take()
        if waiting is None:
            return False
        if waiting.result.set_running_or_notify_cancel():
            try:
                results = [item for item in process.run(waiting.job) if isinstance(item, FrameResult)]
            except (DetectorNotReady, SettingsError) as error:
                fault = detector_fault(error)
                if not self._stopping.is_set():
                    self.breaker.trip(fault, error)
                waiting.result.set_exception(fault)
            except Exception as error:  # noqa: BLE001 (raised again in the waiting caller)
                waiting.result.set_exception(error)
            else:
                waiting.result.set_result(JobResult(results, process.warnings))
        waiting.close()
        return True

    def _do_one_run(self, process: DetectorProcess) -> bool:
        claimed = self._runs.claim(self.owner)
        if claimed is None:
            return False
        self._do(process, claimed)
        return True

    def _do(self, process: DetectorProcess, claimed: ClaimedRun, begun: Job | None = None) -> None:
        self._under_way.add(claimed)
        log.info(
            "run_started",
            run_id=claimed.run_id,
            media_id=claimed.media_id,
            request_id=claimed.request_id,
            attempts=claimed.attempts,
        )
        started, has_ended = time.monotonic(), False
        try:
            has_ended = self._attempts.execute(process, claimed, begun)
        finally:
            self._under_way.discard(claimed)
            self._on_released(claimed.run_id, has_ended)
        log.info(
            "run_ended",
            run_id=claimed.run_id,
            media_id=claimed.media_id,
            request_id=claimed.request_id,
            milliseconds=round((time.monotonic() - started) * 1000),
        )

    def _renew(self) -> None:
        while not self._stopping.wait(self._runs.lease_seconds / HEARTBEATS):
            for claimed in self._under_way.copy():
                try:
                    self._runs.renew(claimed)
                except Exception as error:  # noqa: BLE001 (tried again before the lease ends)
                    self._renewal_failures.failed(error)


def _take_turn(turns: list[_Work], process: DetectorProcess) -> bool:
    """Do the first kind of work that is available and move it to the end, so that no kind starves the others."""
    for work in turns.copy():
        worked = True
        try:
            worked = work(process)
        finally:
            if worked:
                turns.remove(work)
                turns.append(work)
        if worked:
            return True
    return False


def _shutting_down() -> Unavailable:
    return Unavailable("The service is shutting down; try again.", retry_after=5)
