"""A job that an idle detector works at while its run is still being recorded.

A picture is looked at in the time that its upload takes to be synced and committed. Nothing of what is found is kept
before the run's row is there: if none comes, it is forgotten. Nothing here begins or commits a transaction.
"""

import threading
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import BinaryIO

from app.detection.protocol.requests import Job, OpenFile
from app.runs.claims import ClaimedRun


class SpeculativeJob:
    """One job, between whoever records its run and the detector that works at it; each may leave the other alone.

    `file` is closed once the detector has it.
    """

    def __init__(self, file: BinaryIO, confidence: float, frame_interval: float) -> None:
        self.file = file
        self.job = Job(OpenFile(file.fileno()), "Image", confidence, frame_interval)
        self._run: Future[ClaimedRun] = Future()

    def confirm(self, claimed: ClaimedRun) -> bool:
        """The run is recorded, leased to the detector's executor; False where that has left, and cannot do it."""
        if not self._run.set_running_or_notify_cancel():
            return False
        self._run.set_result(claimed)
        return True

    def leave(self) -> None:
        """Nobody is to wait for this side any more. Without effect once the run is confirmed."""
        self._run.cancel()

    def run(self, seconds: float) -> ClaimedRun | None:
        """The run, once it is recorded; None where there is none for us, or none within so many seconds."""
        try:
            return self._run.result(seconds)
        except TimeoutError:
            self.leave()
        except CancelledError:
            pass
        return None if self._run.cancelled() else self._run.result()


@dataclass(slots=True, eq=False)
class _Idle:
    """One who waits, having found nothing to do since so many calls, and what it is given."""

    seen: int
    given: SpeculativeJob | None = None


class IdleDetectors:
    """Where the threads of detectors wait while there is nothing to do. Safe to use from all of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._idle: list[_Idle] = []
        self._is_open = True
        self.calls = 0
        """To be read before a thread looks for something to do, and handed to `wait` if it finds nothing."""

    def __len__(self) -> int:
        return len(self._idle)

    def call(self) -> None:
        """Have all of them look: there may be something to do."""
        with self._changed:
            self.calls += 1
            self._changed.notify_all()

    def wait(self, seen: int, seconds: float) -> SpeculativeJob | None:
        """Until there was another call than those seen, or for so long, or to return what is given meanwhile."""
        idle = _Idle(seen)
        with self._changed:
            self._idle.append(idle)
            self._changed.wait_for(lambda: idle.given is not None or self.calls != seen, seconds)
            if idle in self._idle:
                self._idle.remove(idle)
        return idle.given

    def give(self, speculative_job: SpeculativeJob) -> bool:
        """To one that is idle; False where none is, or where it has been called to something that was there first."""
        with self._changed:
            for idle in self._idle:
                if idle.seen == self.calls and self._is_open:
                    self._idle.remove(idle)
                    idle.given = speculative_job
                    self._changed.notify_all()
                    return True
        return False

    def close(self) -> None:
        """Give nothing any more, and call everybody."""
        with self._changed:
            self._is_open = False
        self.call()
