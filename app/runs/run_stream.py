"""One claimed run, followed from its job to its end: frames recorded as they come, and the pause where it yields.

Nothing here begins or commits a transaction.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from app.detection.jobs import Job, Paused, Total
from app.detection.results import FrameResult
from app.errors import MediaTooLarge
from app.runs.claims import ClaimedRun
from app.runs.detector_process import DetectorProcess
from app.runs.lifecycle import Runs

RECORD_SECONDS = 0.5
"""Seconds between two commits of frames, and between two looks whether somebody waits."""

TURN_SECONDS = 10.0
"""How long a run goes on while another one waits that has yielded before: going on costs a part of a second each."""


class RunLost(Exception):
    """The run's lease has gone to another process, or a person has ended the run."""


@dataclass(slots=True)
class Remainder:
    """What is left to record when a job has ended: the last frames, and the position of a video that was paused.

    `is_complete` says that the job came to its end.
    """

    results: list[FrameResult] = field(default_factory=list)
    is_complete: bool = False
    position: str | None = None


class RunStream:
    """`must_stop` says whether this process is about to end; `has_others` whether somebody but that user waits for a
    detector without a row. `max_boxes` is how many objects a run may find."""

    def __init__(
        self, runs: Runs, must_stop: Callable[[], bool], has_others: Callable[[str], bool], max_boxes: int
    ) -> None:
        self._runs = runs
        self._must_stop = must_stop
        self._has_others = has_others
        self._max_boxes = max_boxes

    def follow(self, process: DetectorProcess, claimed: ClaimedRun, job: Job) -> Remainder:
        """Do the job, record its frames, and return what is not recorded yet.

        A picture's one frame is left to its end, so that it costs no commit of its own. A video pauses where this
        process is about to end, or where the run is to yield. Raises RunLost, MediaTooLarge where more objects are
        found than may be, and what `DetectorProcess.run` raises.
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
                    case Total():
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
