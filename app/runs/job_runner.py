"""Runs one claimed job: records frames as they come, and pauses a video that is to yield or stop.

Nothing here begins or commits a transaction.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from app.detection.protocol.events import FrameCount, Paused
from app.detection.protocol.requests import Job
from app.detection.results import FrameResult
from app.errors import MediaTooLarge
from app.runs.claims import ClaimedRun
from app.runs.detector_process import DetectorProcess
from app.runs.lifecycle import Runs

RECORD_SECONDS = 0.5
"""Seconds between two commits of frames, and between two checks whether the run is to yield."""

TURN_SECONDS = 10.0
"""How long a run continues while a run waits that yielded before; each switch costs a fraction of a second."""


class RunLost(Exception):
    """The run's lease was lost to another process, or a person cancelled the run."""


@dataclass(slots=True)
class Remainder:
    """What is left to record after a job: the last frames, and the position of a paused video.

    `is_complete` says that the job was finished.
    """

    results: list[FrameResult] = field(default_factory=list)
    is_complete: bool = False
    position: str | None = None


class JobRunner:
    """Runs claimed jobs.

    `must_stop()` says whether this process is about to end, `has_others(user)` whether in-memory jobs of other users
    wait. A run may find up to `max_boxes` objects.
    """

    def __init__(
        self, runs: Runs, must_stop: Callable[[], bool], has_others: Callable[[str], bool], max_boxes: int
    ) -> None:
        self._runs = runs
        self._must_stop = must_stop
        self._has_others = has_others
        self._max_boxes = max_boxes

    def run(self, process: DetectorProcess, claimed: ClaimedRun, job: Job) -> Remainder:
        """Run the job, record its frames, and return what is left to record.

        A picture's only frame is left for the commit that ends the run. A video pauses if this process is about to end
        or if the run is to yield. Raises RunLost, MediaTooLarge if it finds more than `max_boxes` objects, and what
        `DetectorProcess.run` raises.
        """
        rest, total, found = Remainder(), None, claimed.boxes_done
        began = recorded = time.monotonic()
        can_pause = is_pausing = False
        with closing(process.run(job)) as items:
            for item in items:
                match item:
                    case Paused():
                        rest.position = item.position
                        return rest
                    case FrameCount():
                        total, can_pause = item.frames, claimed.media_type == "Video"
                    case FrameResult():
                        found += len(item.objects)
                        self._check(found)
                        rest.results.append(item)
                if self._must_stop() and not can_pause:
                    return rest
                is_due = can_pause and time.monotonic() - recorded >= RECORD_SECONDS
                if is_due:
                    if not self._runs.record(claimed, rest.results, total, skipped=process.skipped):
                        raise RunLost
                    rest.results, recorded = [], time.monotonic()
                if can_pause and not is_pausing and (self._must_stop() or (is_due and self._yields(claimed, began))):
                    process.pause()
                    is_pausing = True
        rest.is_complete = True
        return rest

    def _yields(self, claimed: ClaimedRun, began: float) -> bool:
        if self._has_others(claimed.user_id):
            return True
        return self._runs.should_yield(claimed, had_its_turn=time.monotonic() - began >= TURN_SECONDS)

    def _check(self, found: int) -> None:
        if found > self._max_boxes:
            raise MediaTooLarge(
                f"the run found more than {self._max_boxes} objects (MAX_BOXES_PER_RUN);"
                " ask for a higher confidence, or for frames further apart"
            )
