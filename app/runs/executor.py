"""Runs claimed runs: some threads, each with a detector process of its own beside this process.

The threads take what the database says is waiting, whoever accepted it, so a run survives the process that took it in.
An idle one may begin with a picture that is still being recorded: what it finds counts once the run's row is there.
A heartbeat renews the leases of the runs under way; a run whose lease is lost is dropped at its next frame. A video
yields where somebody else waits who has nothing under way, and goes on later. A run that a fault of the house keeps
(`app.runs.house_faults`) is put off; while detection itself cannot work, one thread tries it and the others wait.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

import structlog

from app.database.lease import HEARTBEATS, new_owner
from app.detection.jobs import Job
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
from app.runs.attempts import NOT_RECORDED, RunAttempts
from app.runs.claims import ClaimedRun
from app.runs.detector_process import DetectorProcess
from app.runs.house_faults import Gate, Kind, fault_of_detector, may_work
from app.runs.idle_detectors import IdleDetectors
from app.runs.in_memory import BoundedQueue, Found, Waiting
from app.runs.lifecycle import Runs
from app.runs.run_stream import RunStream
from app.runs.speculative_run import SpeculativeRun

log = structlog.get_logger()

LOOK_EVERY = 1.0
STOP_SECONDS = 5.0
SPECULATIVE_SECONDS = 5.0
"""How long a detector waits for the run that it works ahead of: a disk or a database is slow then, and others wait."""
MAX_BOXES = 1_000_000
"""Objects that one run may find."""
WAITING_IN_MEMORY = 4
"""Pictures that are not stored which may wait for each detector process."""


_Work = Callable[[DetectorProcess], bool]
"""Does one job, if there is any."""


class RunExecutor(Background):
    """`workers` runs at once, or a share of them. `on_left` is called with a run's id when this process works on it no
    more, and with whether it has ended it. `folder_reason` tells what is wrong with a media folder."""

    def __init__(
        self,
        runs: Runs,
        make_process: Callable[[], DetectorProcess],
        *,
        workers: int,
        on_left: Callable[[int, bool], None] = lambda _run_id, _ended: None,
        speculative_seconds: float = SPECULATIVE_SECONDS,
        max_boxes: int = MAX_BOXES,
        folder_reason: Callable[[Path], str | None] = lambda _folder: None,
        gate: Gate | None = None,
    ) -> None:
        super().__init__()
        self._runs = runs
        self._make_process = make_process
        self._on_left = on_left
        self.gate = gate or Gate()
        self._speculative_seconds = speculative_seconds
        self.owner = new_owner()
        self._failures = FailureLog("run_worker_failed")
        self._renewal_failures = FailureLog("lease_not_renewed")
        self._idle = IdleDetectors()
        self._workers = workers
        self._in_memory = BoundedQueue(WAITING_IN_MEMORY * workers)
        stream = RunStream(runs, self._stopping.is_set, self._in_memory.has_jobs_of_others, max_boxes)
        self._attempts = RunAttempts(runs, stream, self.gate, folder_reason, self._stopping)
        self._under_way: set[ClaimedRun] = set()
        self._processes: list[DetectorProcess] = []

    def share(self, processes: int) -> None:
        """Be one of so many processes that share the workers out, each at least one; to be called before `start`."""
        self._workers = -(-self._workers // processes)
        self._in_memory.capacity = WAITING_IN_MEMORY * self._workers

    def stop(self) -> None:
        """Hand back what is under way, end the processes, and answer whoever still waits."""
        self._interrupt()
        self._join(STOP_SECONDS)
        for process in self._processes:  # one that gives no frame for so long is not waited for
            process.close()
        self._join()
        while waiting := self._in_memory.next():
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
        """Have a look now: a run was queued."""
        self._idle.call()

    @property
    def idle(self) -> int:
        """How many detectors wait for something to do, having found within LOOK_EVERY seconds that nothing waits."""
        return len(self._idle)

    @property
    def sandbox(self) -> Sandbox | None:
        """What its detectors are under, as one of them says; None before one has been started."""
        return next((process.sandbox for process in self._processes if process.sandbox), None)

    def give(self, run: SpeculativeRun) -> bool:
        """Have an idle detector begin with a picture whose run is about to be recorded; False where none is idle, or
        where something else may be waiting for it."""
        return self.gate.fault is None and not self._stopping.is_set() and self._idle.give(run)

    def ensure_room(self, user: str) -> None:
        """Raise Unavailable where `detect` would take no job of this user now: before a picture is read that could not
        wait."""
        if self._stopping.is_set():
            raise _shutting_down()
        if self.gate.fault is not None:
            raise self.gate.fault
        self._in_memory.ensure_room(user)

    def detect(self, job: Job, timeout: float, *, user: str) -> Found:
        """Run a job that has no row, for a client that waits; raises Unavailable where too many wait already."""
        if self._stopping.is_set():
            raise _shutting_down()
        waiting = Waiting(job)
        try:
            self._in_memory.join(user, waiting)
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
                if not may_work(self.gate, process, self._stopping):
                    continue
                seen = self._idle.calls
                try:
                    worked = _take_turn(turns, process)
                    self.gate.open(Kind.RESULTS)
                    while not worked and (ahead := self._idle.wait(seen, LOOK_EVERY)):
                        self._work_ahead(process, ahead)
                        worked = self.gate.fault is not None
                except NOT_RECORDED as error:
                    self.gate.close(HouseFault(Kind.RESULTS, str(error)))
                except Exception as error:  # noqa: BLE001 (the next turn may succeed)
                    self._failures.failed(error)
                    self._stopping.wait(LOOK_EVERY)  # which no wake-up shortens

    def _work_ahead(self, process: DetectorProcess, run: SpeculativeRun) -> None:
        job: Job | None = run.job
        with run, run.file:
            try:
                process.begin(run.job)
            except DetectorFailed as error:  # the run itself begins anew, and then it counts
                log.warning("speculative_run_failed", reason=str(error))
                job = None
            claimed = run.claimed(self._speculative_seconds, self._stopping.is_set)
        if claimed is not None:
            self._do(process, claimed, job)
        elif job is not None and not self._stopping.is_set():
            with suppress(DetectionsError):  # whatever is wrong with the picture, nobody has asked for it any more
                deque(process.run(job), maxlen=0)

    def _answer_in_memory(self, process: DetectorProcess) -> bool:
        waiting = self._in_memory.next()
        if waiting is None:
            return False
        if waiting.result.set_running_or_notify_cancel():
            try:
                results = [item for item in process.run(waiting.job) if isinstance(item, FrameResult)]
            except (DetectorNotReady, SettingsError) as error:
                fault = fault_of_detector(error)
                if not self._stopping.is_set():
                    self.gate.close(fault, error)
                waiting.result.set_exception(fault)
            except Exception as error:  # noqa: BLE001 (whoever waits is told, and decides)
                waiting.result.set_exception(error)
            else:
                waiting.result.set_result(Found(results, process.warnings))
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
            tries=claimed.tries,
        )
        started, has_ended = time.monotonic(), False
        try:
            has_ended = self._attempts.execute(process, claimed, begun)
        finally:
            self._under_way.discard(claimed)
            self._on_left(claimed.run_id, has_ended)
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
    """Do the first kind of work that there is. What was done or failed is put last: none keeps the others waiting."""
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
