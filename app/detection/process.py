"""A detector in a process of its own: a media that crashes, hangs or exhausts it costs its own run and nothing else.

The process is spawned, never forked: it holds none of this process's locks, files or connections, and none of its
secrets (see `app.detection.spawn`). Nothing imported here brings in a decoder, an array or the model's runtime; those
live in `app.detection.worker`, on the other side.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from app.detection import orders
from app.detection.jobs import (
    MAX_MESSAGE_BYTES,
    Beat,
    Drawing,
    Drawn,
    Failure,
    Fault,
    Finished,
    Job,
    Loaded,
    Message,
    OpenFile,
    Pause,
    Paused,
    Sealed,
    Total,
    decode,
)
from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.orders import Load, Order, Start
from app.detection.results import FrameResult
from app.detection.sandbox.policy import Sandbox
from app.detection.spawn import Spawned
from app.errors import (
    DetectionsError,
    DetectorFailed,
    DetectorNotReady,
    MediaTooLarge,
    SettingsError,
    StoredFileUnreadable,
    Undecodable,
)
from app.settings.detector import DetectorOptions

__all__ = ["Beat", "DetectorProcess", "Drawing", "Job", "OpenFile", "Total"]

log = structlog.get_logger()

MAX_DRAWING_BYTES = 1 << 30

_ERRORS: dict[Fault, type[DetectionsError]] = {
    Fault.UNDECODABLE: Undecodable,
    Fault.TOO_LARGE: MediaTooLarge,
    Fault.OUT_OF_MEMORY: MediaTooLarge,
    Fault.UNFIT_MODEL: SettingsError,
    Fault.NO_SANDBOX: SettingsError,
    Fault.UNREADABLE: StoredFileUnreadable,
    Fault.BROKEN: DetectorFailed,
}
_NOT_READY = {Fault.OUT_OF_MEMORY: "there is too little memory for the detector to load its model"}
"""What these faults mean before the model is loaded: the media has nothing to do with them."""
_HARMLESS = {Fault.UNDECODABLE, Fault.TOO_LARGE, Fault.UNREADABLE}
"""Faults that leave the process as it was; after any other it is replaced."""


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
        self._child: _Child | None = None
        self._begun: tuple[Job, _Child] | None = None
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
        with self._conversation(Load()) as messages:
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
        with self._conversation(job) as messages:
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
        with self._conversation(drawing) as messages:
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
    def _conversation(self, order: Order) -> Iterator[Iterator[Message]]:
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

    def _child_for(self, order: Order) -> "tuple[_Child, bool]":
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] is order:
            return begun[1], True
        return self._ready_child(), False

    def _ready_child(self) -> "_Child":
        child = self._child
        if child is not None and child.ready:
            return child
        self.close()
        self._child = _Child(self._start)
        return self._child


class _Child:
    """The process and what it says. `at_rest` means that its last order has ended and left it sound."""

    def __init__(self, start: Start) -> None:
        self._limits = start.limits
        self._stopping = threading.Lock()
        self._process = Spawned(start.options)
        self._channel = self._process.channel
        self._channel.limit_waits(start.limits.stall_seconds)
        self.sandbox: Sandbox | None = None
        self._has_model = False
        self._is_loading = False
        self.at_rest = True
        self._send(start)
        self.at_rest = True

    @property
    def ready(self) -> bool:
        """Alive, without a job, and with nothing to say, be it the end of its channel."""
        return self.at_rest and self._process.is_alive and not (self.sandbox and self._channel.wait(0))

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, order: Order) -> None:
        """Send an order and the file that belongs to it. Raises DetectorFailed."""
        self._is_loading = isinstance(order, Load)
        match order:
            case Job(source=Path() as path) | Drawing(source=Path() as path):
                self._send_file(order, path)
            case Job(source=OpenFile(fd)) | Drawing(source=OpenFile(fd)):
                self._send(order, fd)
            case Job(source=bytes() as content) | Drawing(source=bytes() as content):
                self._send(order, None, content)
            case _:
                self._send(order)

    def messages(self, seconds: float) -> Iterator[Message]:
        """What the process says of its order, until it has ended; raises MediaTooLarge after so many seconds."""
        end = time.monotonic() + seconds
        while not self.at_rest:
            message = self._receive(end)
            match message:
                case Sealed():
                    self._note(message)
                    continue
                case Failure():
                    self.at_rest = message.fault in _HARMLESS
                    self._pass_on_errors()
                    raise self._error_of(message)
                case Loaded():
                    self._has_model = True
                    if not self._is_loading:
                        continue
                    self.at_rest = True
                case Finished() | Paused():
                    self.at_rest = True
                    self._pass_on_errors()
            yield message

    def content(self, size: int) -> bytes:
        """So many bytes that follow a message; the process is at rest afterwards."""
        received = bytearray()
        with self._failing():
            while len(received) < size:
                piece = self._channel.receive(size - len(received))
                if not piece:
                    raise ValueError("an empty piece")
                received += piece
        self.at_rest = True
        return bytes(received)

    def stop(self) -> None:
        """Ends the process. The channel goes with this object: another thread may be waiting at it."""
        with self._stopping:
            self._process.end(self._limits.stop_seconds)

    def _send_file(self, order: Job | Drawing, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DetectorFailed(f"the media cannot be read: {error.strerror}") from error
        try:
            self._send(order, fd)
        finally:
            os.close(fd)

    def _send(self, order: Order, fd: int | None = None, content: bytes | None = None) -> None:
        self.at_rest = False
        with self._failing():
            self._channel.send(orders.encode(order), fd)
            if content is not None:
                self._channel.send(content)

    def _receive(self, end: float) -> Message:
        patience = min(self._limits.stall_seconds, max(0.0, end - time.monotonic()))
        with self._failing():
            if self._channel.wait(patience):
                return decode(self._channel.receive(MAX_MESSAGE_BYTES))
        if time.monotonic() >= end:
            raise MediaTooLarge(f"this media takes longer than {self._limits.run_seconds:g} seconds")
        raise self._stalled()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Say what went wrong with the process where the channel to it fails."""
        try:
            yield
        except BlockingIOError as error:
            raise self._stalled() from error
        except (EOFError, OSError) as error:
            raise self._gone() from error
        except (ValueError, LookupError, TypeError, ArithmeticError) as error:
            raise DetectorFailed("the detector sent what is no message") from error

    def _error_of(self, failure: Failure) -> DetectionsError:
        if not self._has_model and failure.fault in _NOT_READY:
            return DetectorNotReady(_NOT_READY[failure.fault])
        return _ERRORS[failure.fault](failure.reason)

    def _broken(self, reason: str) -> DetectorFailed:
        if self._has_model:
            self._pass_on_errors()
            return DetectorFailed(reason)
        return DetectorNotReady(f"{reason} before it was ready", self._process.said())

    def _note(self, sealed: Sealed) -> None:
        if self.sandbox is None and sealed.reason:
            log.warning("detector_sandbox_failed", reason=sealed.reason)
        self.sandbox = self.sandbox or sealed.sandbox

    def _pass_on_errors(self) -> None:
        text = self._process.said()
        if text:
            log.warning("detector_said", pid=self.pid, text=text)

    def _stalled(self) -> DetectorFailed:
        return self._broken(f"the detector gave no sign of life for {self._limits.stall_seconds:g} seconds")

    def _gone(self) -> DetectionsError:
        code = self._process.exit_code(self._limits.stop_seconds)
        if code is None:
            return self._broken("the detector closed its pipe")
        if code == -signal.SIGPROF:
            return MediaTooLarge(f"this picture takes more than {self._limits.picture_seconds:g} seconds to decode")
        if code < 0:
            return self._broken(f"the detector was killed by {signal.Signals(-code).name}")
        return self._broken(f"the detector ended with exit status {code}")
