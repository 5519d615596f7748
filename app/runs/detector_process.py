"""A detector in a process of its own, so that a media item that crashes or hangs it only costs its own run.

The process is spawned and not forked, so it holds none of this process's locks, files, connections or secrets (see
`app.runs.spawn`). Nothing imported here imports a decoder, numpy or the model's runtime; `app.detection.worker` does,
in the detector process.
"""

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.protocol.events import DrawingReady, Event, Finished, FrameCount, Heartbeat, Paused
from app.detection.protocol.requests import Drawing, Job, Load, OpenFile, Pause, Request, Start
from app.detection.results import FrameResult
from app.detection.sandbox.policy import Sandbox
from app.errors import DetectorFailed
from app.runs.detector_child import DetectorChild
from app.settings.detector import DetectorOptions

__all__ = ["DetectorProcess", "Drawing", "FrameCount", "Heartbeat", "Job", "OpenFile"]

MAX_DRAWING_BYTES = 1 << 30


class DetectorProcess:
    """A detector process, started at the first job and again after it failed.

    `run`, `draw` and `load` must not overlap. `close` may be called from any thread at any time; a run under way then
    raises DetectorFailed.
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
        """The sandbox of the last process, as reported by it; None before that."""
        self.skipped = 0
        """Corrupt packets of the last video so far."""
        self.warnings: tuple[str, ...] = ()
        """What is missing from the last picture."""

    @property
    def pid(self) -> int | None:
        """The process id; None while there is no process."""
        child = self._child
        return child.pid if child is not None else None

    def load(self) -> None:
        """Start the process and load the model. Raises SettingsError if the model cannot be used, or DetectorFailed."""
        with self._exchange(Load()) as messages:
            next(messages)

    def begin(self, job: Job) -> None:
        """Send a job without waiting for messages; the caller then calls `run` with the same job.

        An OpenFile may be closed afterwards. Raises DetectorFailed if the job was not sent.
        """
        child = self._ready_child()
        child.send(job)
        self._begun = (job, child)

    def pause(self) -> None:
        """Ask the process to end the current video soon.

        The iterator of `run` then yields a Paused, unless the video ends before. Call it from the thread that iterates.
        Raises DetectorFailed.
        """
        child = self._child
        if child is not None and not child.at_rest:
            child.send(Pause())

    def run(self, job: Job) -> Generator[FrameResult | FrameCount | Heartbeat | Paused]:
        """Yield the job's FrameCount, then each sampled frame's result as it is found, with a Heartbeat now and then.

        After `pause` the last item is a Paused. Total is yielded once a video is at the position to continue from, and
        `pause` must not be called before. Nothing happens before the first `next`, unless `begin` was called. Closing
        the iterator early ends the process.

        Raises Undecodable or MediaTooLarge if the media item is at fault, StoredFileUnreadable if the disk fails to
        read it, DetectorFailed if the process died or sent nothing for `stall_seconds`, and DetectorNotReady if it did
        so before its model was loaded. The next run then starts a new process.
        """
        self.skipped, self.warnings = 0, ()
        with self._exchange(job) as messages:
            for message in messages:
                if isinstance(message, Heartbeat | Finished | Paused):
                    self.skipped = message.skipped
                if isinstance(message, Finished):
                    self.warnings = message.warnings
                if isinstance(message, FrameCount | FrameResult | Heartbeat | Paused):
                    yield message

    def draw(self, drawing: Drawing) -> bytes:
        """Return the drawing as the content of a picture file. Raises as `run`."""
        content = b""
        with self._exchange(drawing) as messages:
            for message in messages:
                if isinstance(message, DrawingReady):
                    content = self._content(message.size)
        return content

    def close(self) -> None:
        """End the process, killing it if need be, and wait for its end; a later run starts another one."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def _content(self, size: int) -> bytes:
        if self._child is None or size > MAX_DRAWING_BYTES:
            raise DetectorFailed(f"the detector sent a drawing of {size} bytes")
        return self._child.content(size)

    @contextmanager
    def _exchange(self, request: Request) -> Iterator[Iterator[Event]]:
        child, is_begun = self._child_for(request)
        try:
            if not is_begun:
                child.send(request)
            yield child.messages(math.inf if isinstance(request, Load) else self._limits.run_seconds)
        finally:
            self.sandbox = child.sandbox
            if not child.at_rest:
                self._child = None
                child.stop()

    def _child_for(self, request: Request) -> tuple[DetectorChild, bool]:
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] is request:
            return begun[1], True
        return self._ready_child(), False

    def _ready_child(self) -> DetectorChild:
        child = self._child
        if child is not None and child.ready:
            return child
        self.close()
        self._child = DetectorChild(self._start)
        return self._child
