"""A detector in a process of its own: a media that crashes, hangs or exhausts it costs its own run and nothing else.

The process is spawned, never forked: it holds none of this process's locks, files or connections, and none of its
secrets (see `app.runs.spawn`). Nothing imported here brings in a decoder, an array or the model's runtime; those
live in `app.detection.worker`, on the other side.
"""

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.detection.jobs import (
    Beat,
    Drawing,
    Drawn,
    Finished,
    Job,
    Message,
    OpenFile,
    Pause,
    Paused,
    Total,
)
from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.orders import Load, Order, Start
from app.detection.results import FrameResult
from app.detection.sandbox.policy import Sandbox
from app.errors import DetectorFailed
from app.runs.detector_child import DetectorChild
from app.settings.detector import DetectorOptions

__all__ = ["Beat", "DetectorProcess", "Drawing", "Job", "OpenFile", "Total"]

MAX_DRAWING_BYTES = 1 << 30


class DetectorProcess:
    """One detector process, started at the first job and again after it was lost.

    One caller at a time: `run`, `draw` and `load` must not overlap. `close` may be called from any thread at any time;
    a run under way then ends with DetectorFailed.
    """

    def __init__(
        self,
        model: Path,
        media_limits: MediaLimits | None = None,
        limits: ProcessLimits | None = None,
        options: DetectorOptions | None = None,
    ) -> None:
        self._limits = limits or ProcessLimits()
        self._start = Start(model.absolute(), media_limits or MediaLimits(), self._limits, options or DetectorOptions())
        self._child: DetectorChild | None = None
        self._begun: tuple[Job, DetectorChild] | None = None
        self.sandbox: Sandbox | None = None
        """What the process that was last started is under, as it says itself; None before it has said so."""
        self.skipped = 0
        """Corrupt packets of the video that was last run, as far as it came."""
        self.warnings: tuple[str, ...] = ()
        """What is missing of the picture that was last run."""

    @property
    def pid(self) -> int | None:
        """The process's id, None while there is none."""
        child = self._child
        return child.pid if child is not None else None

    def load(self) -> None:
        """Starts the process and has it load the model. Raises SettingsError if it does not fit, or DetectorFailed."""
        with self._exchange(Load()) as messages:
            next(messages)

    def begin(self, job: Job) -> None:
        """Send a job to the process without waiting for anything that it says; `run` of the same job comes next.

        An OpenFile may be closed afterwards. Raises DetectorFailed, and then nothing has begun.
        """
        child = self._ready_child()
        child.send(job)
        self._begun = (job, child)

    def pause(self) -> None:
        """Have the video that is under way end soon.

        The iterator that `run` gave goes on to a Paused, or to its end where that came first. To be called by whoever
        iterates. Raises DetectorFailed.
        """
        child = self._child
        if child is not None and not child.at_rest:
            child.send(Pause())

    def run(self, job: Job) -> Generator[FrameResult | Total | Beat | Paused]:
        """The job's Total, then a result for each sampled frame as soon as it is there, with a Beat now and then.

        At the end comes a Paused where `pause` was called. Total comes once a video has found the position from which
        it goes on, and `pause` is not to be called before.

        Nothing happens before the first `next`, unless `begin` was called before. Closing the iterator early ends the
        process with the job in it.

        Raises Undecodable and MediaTooLarge, which are the media's fault, StoredFileUnreadable where the disk refused
        to read it, or DetectorFailed: the process died, or gave no sign of life for `stall_seconds`; DetectorNotReady
        where that was before its model was loaded. The run after that has a new process.
        """
        self.skipped, self.warnings = 0, ()
        with self._exchange(job) as messages:
            for message in messages:
                if isinstance(message, Beat | Finished | Paused):
                    self.skipped = message.skipped
                if isinstance(message, Finished):
                    self.warnings = message.warnings
                if isinstance(message, Total | FrameResult | Beat | Paused):
                    yield message

    def draw(self, drawing: Drawing) -> bytes:
        """The drawing, as the content of a file. Raises as `run`."""
        content = b""
        with self._exchange(drawing) as messages:
            for message in messages:
                if isinstance(message, Drawn):
                    content = self._content(message.size)
        return content

    def close(self) -> None:
        """Ends the process, by force if need be, and waits for its end; a later run would start another."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def _content(self, size: int) -> bytes:
        if self._child is None or size > MAX_DRAWING_BYTES:
            raise DetectorFailed(f"the detector sent a drawing of {size} bytes")
        return self._child.content(size)

    @contextmanager
    def _exchange(self, order: Order) -> Iterator[Iterator[Message]]:
        child, is_begun = self._child_for(order)
        try:
            if not is_begun:
                child.send(order)
            yield child.messages(math.inf if isinstance(order, Load) else self._limits.run_seconds)
        finally:
            self.sandbox = child.sandbox
            if not child.at_rest:
                self._child = None
                child.stop()

    def _child_for(self, order: Order) -> tuple[DetectorChild, bool]:
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] is order:
            return begun[1], True
        return self._ready_child(), False

    def _ready_child(self) -> DetectorChild:
        child = self._child
        if child is not None and child.ready:
            return child
        self.close()
        self._child = DetectorChild(self._start)
        return self._child
