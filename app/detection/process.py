"""A detector in a process of its own: a media that crashes, hangs or exhausts it costs its own run and nothing else.

The process is spawned, never forked: it holds none of this process's locks, files or connections. Nothing imported
here brings in a decoder, an array or the model's runtime; those live in `app.detection.worker`, on the other side.
"""

import math
import multiprocessing
import os
import pkgutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any

from app import processors
from app.detection.jobs import (
    MAX_MESSAGE_BYTES,
    Beat,
    Failure,
    Fault,
    Finished,
    Job,
    Loaded,
    Message,
    OpenFile,
    Total,
    decode,
)
from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.results import FrameResult
from app.errors import DetectionsError, DetectorFailed, MediaTooLarge, SettingsError, Undecodable
from app.settings import DetectorOptions

__all__ = ["Beat", "DetectorProcess", "Job", "OpenFile", "Total"]

_WORKER = "app.detection.worker:serve"

_ERRORS: dict[Fault, type[DetectionsError]] = {
    Fault.UNDECODABLE: Undecodable,
    Fault.TOO_LARGE: MediaTooLarge,
    Fault.OUT_OF_MEMORY: MediaTooLarge,
    Fault.UNFIT_MODEL: SettingsError,
    Fault.BROKEN: DetectorFailed,
}
_HARMLESS = {Fault.UNDECODABLE, Fault.TOO_LARGE}
"""Faults that leave the process as it was; after any other it is replaced."""


class DetectorProcess:
    """One detector process, started at the first job and again after it was lost.

    One caller at a time: `run` and `load` must not overlap. `close` may be called from any thread at any time; a run
    under way then ends with DetectorFailed.
    """

    def __init__(
        self,
        model: Path,
        media_limits: MediaLimits | None = None,
        limits: ProcessLimits | None = None,
        options: DetectorOptions | None = None,
    ) -> None:
        self._model = model
        self._options = options or DetectorOptions()
        self._media_limits = media_limits or MediaLimits()
        self._limits = limits or ProcessLimits()
        self._child: _Child | None = None
        self._begun: tuple[Job, _Child] | None = None
        self.skipped = 0
        """Corrupt packets of the video that was last run, as far as it came."""

    @property
    def pid(self) -> int | None:
        """The process's id, None while there is none."""
        child = self._child
        return child.pid if child is not None else None

    def load(self) -> None:
        """Starts the process and has it load the model. Raises SettingsError if it does not fit, or DetectorFailed."""
        with self._conversation(None) as messages:
            next(messages)

    def begin(self, job: Job) -> None:
        """Send a job to the process without waiting for anything that it says; `run` of the same job comes next.

        An OpenFile may be closed afterwards. Raises DetectorFailed, and then nothing has begun.
        """
        child = self._ready_child()
        child.send(job)
        self._begun = (job, child)

    def run(self, job: Job) -> Generator[FrameResult | Total | Beat]:
        """The job's Total, then a result for each sampled frame as soon as it is there, with a Beat now and then.

        Nothing happens before the first `next`, unless `begin` was called before. Closing the iterator early ends the
        process with the job in it.

        Raises Undecodable and MediaTooLarge, which are the media's fault, or DetectorFailed: the process died, or gave
        no sign of life for `stall_seconds`. The run after that has a new process.
        """
        self.skipped = 0
        with self._conversation(job) as messages:
            for message in messages:
                if isinstance(message, Beat | Finished):
                    self.skipped = message.skipped
                if isinstance(message, Total | FrameResult | Beat):
                    yield message

    def close(self) -> None:
        """Ends the process, by force if need be, and waits for its end; a later run would start another."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    @contextmanager
    def _conversation(self, job: Job | None) -> Iterator[Iterator[Message]]:
        child, is_begun = self._child_for(job)
        try:
            if not is_begun:
                child.send(job)
            yield child.messages(math.inf if job is None else self._limits.run_seconds)
        finally:
            if not child.at_rest:
                self._child = None
                child.stop()

    def _child_for(self, job: Job | None) -> "tuple[_Child, bool]":
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] is job:
            return begun[1], True
        return self._ready_child(), False

    def _ready_child(self) -> "_Child":
        child = self._child
        if child is not None and child.ready:
            return child
        self.close()
        self._child = _Child(self._model, self._media_limits, self._limits, self._options)
        return self._child


class _Child:
    """The process and this end of its pipe. `at_rest` means that its last job has ended and left it sound."""

    def __init__(self, model: Path, media_limits: MediaLimits, limits: ProcessLimits, options: DetectorOptions) -> None:
        self._limits = limits
        self._stopping = threading.Lock()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        _bound_waiting(self._connection, limits.stall_seconds)
        self._process = context.Process(
            target=_enter, args=(_WORKER, theirs, model, media_limits, limits, options), name="detector", daemon=True
        )
        try:
            with processors.anywhere():
                self._process.start()
        except OSError as error:
            raise DetectorFailed(f"the detector cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
        self.at_rest = True

    @property
    def ready(self) -> bool:
        """Alive, without a job, and with nothing to say, be it the end of its pipe."""
        return self.at_rest and self._process.is_alive() and not self._connection.poll()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, job: Job | None) -> None:
        self.at_rest = False
        try:
            self._connection.send(job)
            if job is not None and isinstance(job.source, OpenFile):
                send_handle(self._connection, job.source.fd, self.pid)
        except BlockingIOError as error:
            raise self._stalled() from error
        except OSError as error:
            raise self._gone() from error

    def messages(self, seconds: float) -> Iterator[Message]:
        """What the process says of its job, until it has ended; raises MediaTooLarge after so many seconds."""
        end = time.monotonic() + seconds
        while not self.at_rest:
            message = self._receive(end)
            match message:
                case Failure():
                    self.at_rest = message.fault in _HARMLESS
                    raise _ERRORS[message.fault](message.reason)
                case Finished() | Loaded():
                    self.at_rest = True
            yield message

    def _receive(self, end: float) -> Message:
        patience = min(self._limits.stall_seconds, max(0.0, end - time.monotonic()))
        try:
            if self._connection.poll(patience):
                return decode(self._connection.recv_bytes(MAX_MESSAGE_BYTES))
        except BlockingIOError as error:
            raise self._stalled() from error
        except (EOFError, OSError) as error:
            raise self._gone() from error
        except (ValueError, KeyError, TypeError) as error:
            raise DetectorFailed("the detector sent what is no message") from error
        if time.monotonic() >= end:
            raise MediaTooLarge(f"this media takes longer than {self._limits.run_seconds:g} seconds")
        raise self._stalled()

    def stop(self) -> None:
        """Ends the process. The pipe goes with this object: another thread may be waiting at it."""
        with self._stopping:
            self._process.terminate()
            self._process.join(self._limits.stop_seconds)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()

    def _stalled(self) -> DetectorFailed:
        return DetectorFailed(f"the detector gave no sign of life for {self._limits.stall_seconds:g} seconds")

    def _gone(self) -> DetectorFailed:
        self._process.join(self._limits.stop_seconds)
        code = self._process.exitcode
        if code is None:
            return DetectorFailed("the detector closed its pipe")
        if code < 0:
            return DetectorFailed(f"the detector was killed by {signal.Signals(-code).name}")
        return DetectorFailed(f"the detector ended with exit status {code}")


def _enter(worker: str, *arguments: Any) -> None:
    """Where the new process begins; the worker is found by name so that this side never imports it."""
    pkgutil.resolve_name(worker)(*arguments)


def _bound_waiting(connection: Connection, seconds: float) -> None:
    """Has a write to, or a read from, a process that stopped in the middle of a message fail instead of waiting."""
    timeval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
    with socket.socket(fileno=os.dup(connection.fileno())) as pipe:
        pipe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        pipe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
