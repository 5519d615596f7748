"""A detector process as its parent sees it: sends orders, receives messages and turns its failures into errors.

Nothing imported here imports a decoder, numpy or the model's runtime.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from app.detection.protocol import requests
from app.detection.protocol.events import (
    MAX_EVENT_BYTES,
    Event,
    Failure,
    FailureKind,
    Finished,
    ModelLoaded,
    Paused,
    SandboxApplied,
    decode,
)
from app.detection.protocol.requests import Drawing, Job, Load, OpenFile, Request, Start
from app.detection.sandbox.policy import Sandbox
from app.errors import (
    DetectionsError,
    DetectorFailed,
    DetectorNotReady,
    MediaTooLarge,
    SettingsError,
    StoredFileUnreadable,
    Undecodable,
)
from app.runs.spawn import SpawnedProcess

log = structlog.get_logger()

_ERRORS: dict[FailureKind, type[DetectionsError]] = {
    FailureKind.UNDECODABLE: Undecodable,
    FailureKind.TOO_LARGE: MediaTooLarge,
    FailureKind.OUT_OF_MEMORY: MediaTooLarge,
    FailureKind.UNFIT_MODEL: SettingsError,
    FailureKind.NO_SANDBOX: SettingsError,
    FailureKind.UNREADABLE: StoredFileUnreadable,
    FailureKind.BROKEN: DetectorFailed,
}
_NOT_READY = {FailureKind.OUT_OF_MEMORY: "there is too little memory for the detector to load its model"}
"""Faults that have nothing to do with the media item while the model is not loaded."""

_HARMLESS = {FailureKind.UNDECODABLE, FailureKind.TOO_LARGE, FailureKind.UNREADABLE}
"""Faults after which the process can go on; after any other it is replaced."""


class DetectorChild:
    """One detector process. `at_rest` says that its last request ended and that it can take another."""

    def __init__(self, start: Start) -> None:
        self._limits = start.limits
        self._stopping = threading.Lock()
        self._process = SpawnedProcess(start.options)
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
        """Whether the process is alive and idle, with nothing to read from its channel."""
        return self.at_rest and self._process.is_alive and not (self.sandbox and self._channel.wait(0))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, request: Request) -> None:
        """Send a request with the file that it is about. Raises DetectorFailed."""
        self._is_loading = isinstance(request, Load)
        match request:
            case Job(source=Path() as path) | Drawing(source=Path() as path):
                self._send_file(request, path)
            case Job(source=OpenFile(fd)) | Drawing(source=OpenFile(fd)):
                self._send(request, fd)
            case Job(source=bytes() as content) | Drawing(source=bytes() as content):
                self._send(request, None, content)
            case _:
                self._send(request)

    def messages(self, seconds: float) -> Iterator[Event]:
        """Yield the messages about the current request until it ends; raise MediaTooLarge after `seconds`."""
        end = time.monotonic() + seconds
        while not self.at_rest:
            message = self._receive(end)
            match message:
                case SandboxApplied():
                    self._note(message)
                    continue
                case Failure():
                    self.at_rest = message.kind in _HARMLESS
                    self._log_stderr()
                    raise self._error_of(message)
                case ModelLoaded():
                    self._has_model = True
                    if not self._is_loading:
                        continue
                    self.at_rest = True
                case Finished() | Paused():
                    self.at_rest = True
                    self._log_stderr()
            yield message

    def content(self, size: int) -> bytes:
        """Return the `size` bytes that follow a message; the process is at rest afterwards."""
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
        """End the process. The channel is closed with this object, because another thread may be reading it."""
        with self._stopping:
            self._process.end(self._limits.stop_seconds)

    def _send_file(self, request: Job | Drawing, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DetectorFailed(f"the media file cannot be opened: {error.strerror}") from error
        try:
            self._send(request, fd)
        finally:
            os.close(fd)

    def _send(self, request: Request, fd: int | None = None, content: bytes | None = None) -> None:
        self.at_rest = False
        with self._failing():
            self._channel.send(requests.encode(request), fd)
            if content is not None:
                self._channel.send(content)

    def _receive(self, end: float) -> Event:
        patience = min(self._limits.stall_seconds, max(0.0, end - time.monotonic()))
        with self._failing():
            if self._channel.wait(patience):
                return decode(self._channel.receive(MAX_EVENT_BYTES))
        if time.monotonic() >= end:
            raise MediaTooLarge(f"this media item takes longer than {self._limits.run_seconds:g} seconds")
        raise self._stalled()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn errors of the channel into errors of the process."""
        try:
            yield
        except BlockingIOError as error:
            raise self._stalled() from error
        except (EOFError, OSError) as error:
            raise self._exited() from error
        except (ValueError, LookupError, TypeError, ArithmeticError) as error:
            raise DetectorFailed("the detector sent a malformed message") from error

    def _error_of(self, failure: Failure) -> DetectionsError:
        if not self._has_model and failure.kind in _NOT_READY:
            return DetectorNotReady(_NOT_READY[failure.kind])
        return _ERRORS[failure.kind](failure.reason)

    def _broken(self, reason: str) -> DetectorFailed:
        if self._has_model:
            self._log_stderr()
            return DetectorFailed(reason)
        return DetectorNotReady(f"{reason} before it was ready", self._process.read_stderr())

    def _note(self, sealed: SandboxApplied) -> None:
        if self.sandbox is None and sealed.reason:
            log.warning("detector_sandbox_failed", reason=sealed.reason)
        self.sandbox = self.sandbox or sealed.sandbox

    def _log_stderr(self) -> None:
        text = self._process.read_stderr()
        if text:
            log.warning("detector_stderr", pid=self.pid, text=text)

    def _stalled(self) -> DetectorFailed:
        return self._broken(f"the detector gave no sign of life for {self._limits.stall_seconds:g} seconds")

    def _exited(self) -> DetectionsError:
        code = self._process.exit_code(self._limits.stop_seconds)
        if code is None:
            return self._broken("the detector closed its pipe")
        if code == -signal.SIGPROF:
            return MediaTooLarge(f"this picture takes more than {self._limits.picture_seconds:g} seconds to decode")
        if code < 0:
            return self._broken(f"the detector was killed by {signal.Signals(-code).name}")
        return self._broken(f"the detector ended with exit status {code}")
