"""The inside of a detector process: it takes requests one at a time and sends events as frames are processed.

Only `child.py` imports this module, because it brings in the decoders and onnxruntime. The process owns nothing that
outlives it, so its parent can kill it at any time and start another.
"""

import errno
import io
import logging
import os
import resource
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import av
import numpy as np
import PIL

import app.detection
from app.detection.drawing import draw
from app.detection.inference.external_data import external_files
from app.detection.inference.runtime import onnxruntime
from app.detection.inference.yolo import YoloDetector
from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.pictures.decode import decode_picture
from app.detection.protocol import requests
from app.detection.protocol.channel import Channel
from app.detection.protocol.events import (
    DrawingReady,
    Event,
    Failure,
    FailureKind,
    Finished,
    FrameCount,
    Heartbeat,
    ModelLoaded,
    Paused,
    SandboxApplied,
    encode,
)
from app.detection.protocol.requests import (
    MAX_CONTENT_BYTES,
    MAX_REQUEST_BYTES,
    Drawing,
    Job,
    Load,
    OpenFile,
    Pause,
    Request,
    Source,
    Start,
)
from app.detection.results import FrameResult
from app.detection.sandbox import policy
from app.detection.video.decode import Video
from app.detection.video.prefetch import prefetch
from app.errors import DetectionsError, MediaTooLarge, SettingsError, Undecodable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LOG = logging.getLogger(__name__)
_LIBRARIES = (app.detection, av, np, onnxruntime, PIL)
_HEARTBEAT_SECONDS = 1.0
_DRAWING_CHUNK_BYTES = 1 << 20
_HEARTBEATS_PER_STALL_LIMIT = 4
_PAUSE_POLL_SECONDS = 0.05
"""How often a video checks for a Pause request."""
_DISK_ERRNOS = (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO, errno.ETIMEDOUT, errno.EACCES)
_FAILURE_KINDS: dict[type[DetectionsError], FailureKind] = {
    Undecodable: FailureKind.UNDECODABLE,
    MediaTooLarge: FailureKind.TOO_LARGE,
    SettingsError: FailureKind.UNFIT_MODEL,
}


def serve(fd: int) -> None:
    """Handle the requests of a channel until its other end is closed. `fd` is the channel's file descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C signals the whole process group; the parent decides
    channel = Channel(socket.socket(fileno=fd))
    try:
        start = requests.decode(channel.receive(MAX_REQUEST_BYTES))
        assert isinstance(start, Start)
        _limit(start.limits, start)
        applied = _enter_sandbox(start)
        channel.send(encode(applied))
        if isinstance(applied, Failure):
            return
        threading.Thread(target=_end_with_the_parent, args=(channel,), daemon=True).start()
        worker = Worker(channel, start)
        while True:
            worker.handle(_receive_request(channel))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _limit(limits: ProcessLimits, start: Start) -> None:
    os.nice(limits.niceness)
    if start.options.provider == "cpu":  # CUDA reserves far more addresses than it will ever use memory
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = limits.memory_bytes if hard == resource.RLIM_INFINITY else min(limits.memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.filterwarnings("ignore", module="PIL")


def _enter_sandbox(start: Start) -> SandboxApplied | Failure:
    """Enter the sandbox. Returns Failure if the whole sandbox is required but not available."""
    if start.options.sandbox == "off":
        return SandboxApplied(policy.NO_SANDBOX)
    readable = [*policy.libraries(_LIBRARIES), start.model]
    with suppress(OSError):  # reported when the model is loaded
        readable += external_files(start.model)
    try:
        applied = SandboxApplied(policy.restrict(readable, start.options))
    except OSError as error:
        applied = SandboxApplied(policy.NO_SANDBOX, f"the sandbox cannot be applied: {error.strerror or error}")
    if start.options.sandbox == "required" and not applied.sandbox.is_complete:
        reasons = [applied.reason] if applied.reason else applied.sandbox.missing
        return Failure(FailureKind.NO_SANDBOX, f"DETECTOR_SANDBOX is required, but {' and '.join(reasons)}.")
    return applied


def _receive_request(channel: Channel) -> Request:
    request: Request = Pause()
    while isinstance(request, Pause):  # the video that it was meant for may have ended
        event, fd = channel.receive_with_file(MAX_REQUEST_BYTES)
        source: Source | None = None if fd is None else OpenFile(fd)
        if source is None and requests.has_source(event):
            source = channel.receive(MAX_CONTENT_BYTES)
        request = requests.decode(event, source)
    return request


def _end_with_the_parent(channel: Channel) -> None:
    channel.wait_until_closed()
    os._exit(1)


class Worker:
    """Handles requests. The model is loaded by the first request that needs it."""

    def __init__(self, channel: Channel, start: Start) -> None:
        self._channel = channel
        self._start = start
        self._limits: MediaLimits = start.media_limits
        self._heartbeat_seconds = min(_HEARTBEAT_SECONDS, start.limits.stall_seconds / _HEARTBEATS_PER_STALL_LIMIT)
        self._send_lock = threading.Lock()
        self._last_sent = self._last_pause_poll = time.monotonic()
        self._detector: YoloDetector | None = None

    def handle(self, request: Request) -> None:
        """Send the events of a request, the last of which says how it ended."""
        try:
            match request:
                case Load() if self._detector is not None:
                    self._send(ModelLoaded())
                case Load():
                    self._get_detector()
                case Job():
                    self._run(request, self._get_detector())
                case Drawing():
                    self._draw(request)
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001 - the parent learns of any error
            self._send(_failure(error))

    def _get_detector(self) -> YoloDetector:
        if self._detector is None:
            self._detector = YoloDetector(self._start.model, self._start.options)
            self._send(ModelLoaded())
        return self._detector

    def _run(self, job: Job, detector: YoloDetector) -> None:
        with _open_source(job.source) as file:
            try:
                if job.media_type == "Image":
                    self._run_picture(job, detector, file)
                else:
                    self._run_video(job, detector, file)
            except Exception:
                _check_disk(file)
                raise

    def _run_picture(self, job: Job, detector: YoloDetector, file: BinaryIO) -> None:
        with _limit_processor_time(self._start.limits.picture_seconds):
            frame = decode_picture(file, max_pixels=self._limits.picture_pixels, fit=detector.useful_side)
        self._send(FrameCount(1))
        objects = tuple(detector.detect(frame.picture, job.confidence, self._heartbeat))
        _check_disk(file)
        self._send(FrameResult(frame.index, frame.time, objects))
        self._send(Finished(skipped=0, warnings=frame.warnings))

    def _run_video(self, job: Job, detector: YoloDetector, file: BinaryIO) -> None:
        with Video(
            file,
            interval=job.frame_interval,
            limits=self._limits.video,
            fit=detector.useful_side,
            on_packet=lambda: self._on_packet(video),
            position=job.position,
        ) as video:
            try:
                self._detect_frames(video, detector, job.confidence)
            except Exception:
                self._send(Heartbeat(video.skipped))
                raise
            _check_disk(file)
            self._send(Paused(video.position, video.skipped) if video.is_paused else Finished(video.skipped))

    def _detect_frames(self, video: Video, detector: YoloDetector, confidence: float) -> None:
        skipped = 0
        with closing(prefetch(video.frames(on_start=lambda: self._send(FrameCount(video.total))))) as frames:
            for frame in frames:
                objects = tuple(detector.detect(frame.picture, confidence, lambda: self._heartbeat(video.skipped)))
                if video.skipped != skipped:
                    skipped = video.skipped
                    self._send(Heartbeat(skipped))
                self._send(FrameResult(frame.index, frame.time, objects, frame.source_frame))

    def _draw(self, drawing: Drawing) -> None:
        seconds = self._start.limits.picture_seconds if drawing.media_type == "Image" else 0
        with _open_source(drawing.source) as file, _limit_processor_time(seconds):
            picture = memoryview(draw(drawing, file, self._limits, self._heartbeat))
        self._send(DrawingReady(len(picture)))
        for start in range(0, len(picture), _DRAWING_CHUNK_BYTES):
            self._channel.send(bytes(picture[start : start + _DRAWING_CHUNK_BYTES]))

    def _on_packet(self, video: Video) -> None:
        """Send a heartbeat and check for Pause. Runs in the decoding thread, which alone receives during a video."""
        self._heartbeat(video.skipped)
        now = time.monotonic()
        if now - self._last_pause_poll >= _PAUSE_POLL_SECONDS:
            self._last_pause_poll = now
            if self._channel.wait(0):
                self._channel.receive(MAX_REQUEST_BYTES)  # a Pause; no other request is sent during a job
                video.pause()

    def _heartbeat(self, skipped: int = 0) -> None:
        """Send a heartbeat if one is due. Called for each packet and each pass of the model, from two threads."""
        if time.monotonic() - self._last_sent >= self._heartbeat_seconds:
            self._send(Heartbeat(skipped))

    def _send(self, event: Event) -> None:
        with self._send_lock:
            self._channel.send(encode(event))
            self._last_sent = time.monotonic()


@contextmanager
def _limit_processor_time(seconds: float) -> Iterator[None]:
    """Have the kernel end this process if the block takes more than `seconds` of processor time; 0 for no limit.

    A decoder in an endless loop neither sends heartbeats nor reacts to requests.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _open_source(source: Path | Source) -> BinaryIO:
    match source:
        case bytes():
            return io.BytesIO(source)
        case OpenFile(fd):
            return io.BufferedReader(_StoredFile(fd))
        case Path():
            raise ValueError("a stored file was not passed as an open file")


class _StoredFile(io.FileIO):
    """Remembers the disk's read error, which decoders report as damage or as the end of the file."""

    read_error: OSError | None = None

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.read_error = error
            raise


def _check_disk(file: BinaryIO) -> None:
    """Raise the error that the disk gave while the file was read, if any."""
    raw = getattr(file, "raw", None)
    if isinstance(raw, _StoredFile) and raw.read_error is not None:
        raise raw.read_error


def _failure(error: Exception) -> Failure:
    if isinstance(error, MemoryError):
        return Failure(FailureKind.OUT_OF_MEMORY, "decoding this file takes more memory than a detector may use")
    for error_type, kind in _FAILURE_KINDS.items():
        if isinstance(error, error_type):
            return Failure(kind, str(error))
    if isinstance(error, OSError) and error.errno in _DISK_ERRNOS:
        return Failure(FailureKind.UNREADABLE, f"the stored file cannot be read: {error.strerror}")
    _LOG.error("detector failed unexpectedly", exc_info=error)
    if isinstance(error, OSError):  # the error's text would name the file
        return Failure(FailureKind.BROKEN, f"the file cannot be read: {error.strerror}")
    return Failure(FailureKind.BROKEN, f"the detector failed unexpectedly ({type(error).__name__})")
