"""The inside of a detector process: jobs come in one at a time, results go out as they are found.

Imported only there, because it brings the decoders and the model's runtime with it. The process owns nothing that
outlives it: whatever happens in here, its parent can kill it and start another.
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
from app.detection.protocol import orders
from app.detection.protocol.channel import Channel
from app.detection.protocol.jobs import (
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
    encode,
)
from app.detection.protocol.orders import MAX_CONTENT_BYTES, MAX_ORDER_BYTES, Load, Order, Source, Start
from app.detection.results import FrameResult
from app.detection.sandbox import policy
from app.detection.video.decode import Video
from app.detection.video.prefetch import ahead
from app.errors import DetectionsError, MediaTooLarge, SettingsError, Undecodable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LOG = logging.getLogger(__name__)
_LIBRARIES = (app.detection, av, np, onnxruntime, PIL)
_BEAT_SECONDS = 1.0
_ONE_PIECE = 1 << 20
_BEATS_BEFORE_A_STALL = 4
_LOOK_SECONDS = 0.05
"""How often a video looks for a Pause."""
_DISK_REFUSES = (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO, errno.ETIMEDOUT, errno.EACCES)
_FAULTS: dict[type[DetectionsError], Fault] = {
    Undecodable: Fault.UNDECODABLE,
    MediaTooLarge: Fault.TOO_LARGE,
    SettingsError: Fault.UNFIT_MODEL,
}


def serve(fd: int) -> None:
    """Answer the orders that come through a channel, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    channel = Channel(socket.socket(fileno=fd))
    try:
        start = orders.decode(channel.receive(MAX_ORDER_BYTES))
        assert isinstance(start, Start)
        _limit(start.limits, start)
        sealed = _seal(start)
        channel.send(encode(sealed))
        if isinstance(sealed, Failure):
            return
        threading.Thread(target=_end_with_the_parent, args=(channel,), daemon=True).start()
        worker = Worker(channel, start)
        while True:
            worker.answer(_received(channel))
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


def _seal(start: Start) -> Sealed | Failure:
    """Give up what is not needed; a failure where all of that is required and cannot be."""
    if start.options.sandbox == "off":
        return Sealed(policy.NONE)
    readable = [*policy.libraries(_LIBRARIES), start.model]
    with suppress(OSError):  # a model that cannot be read is told of when it is loaded
        readable += external_files(start.model)
    try:
        sealed = Sealed(policy.seal(readable, start.options))
    except OSError as error:
        sealed = Sealed(policy.NONE, f"it cannot be applied: {error.strerror or error}")
    if start.options.sandbox == "required" and not sealed.sandbox.is_whole:
        reasons = [sealed.reason] if sealed.reason else sealed.sandbox.missing
        return Failure(Fault.NO_SANDBOX, f"DETECTOR_SANDBOX is required, but {' and '.join(reasons)}.")
    return sealed


def _received(channel: Channel) -> Order:
    order: Order = Pause()
    while isinstance(order, Pause):  # one may come behind the end of the video that it was meant for
        message, fd = channel.receive_with_file(MAX_ORDER_BYTES)
        source: Source | None = None if fd is None else OpenFile(fd)
        if source is None and orders.has_source(message):
            source = channel.receive(MAX_CONTENT_BYTES)
        order = orders.decode(message, source)
    return order


def _end_with_the_parent(channel: Channel) -> None:
    channel.wait_for_the_end()
    os._exit(1)


class Worker:
    """Runs jobs with a model that is loaded at the first one."""

    def __init__(self, channel: Channel, start: Start) -> None:
        self._channel = channel
        self._start = start
        self._limits: MediaLimits = start.media_limits
        self._beat_seconds = min(_BEAT_SECONDS, start.limits.stall_seconds / _BEATS_BEFORE_A_STALL)
        self._sending = threading.Lock()
        self._last_sent = self._last_look = time.monotonic()
        self._detector: YoloDetector | None = None

    def answer(self, order: Order) -> None:
        """Send everything that the order gives, and how it ended."""
        try:
            match order:
                case Load() if self._detector is not None:
                    self._send(Loaded())
                case Load():
                    self._loaded()
                case Job():
                    self._run(order, self._loaded())
                case Drawing():
                    self._draw(order)
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told
            self._send(_failure(error))

    def _loaded(self) -> YoloDetector:
        if self._detector is None:
            self._detector = YoloDetector(self._start.model, self._start.options)
            self._send(Loaded())
        return self._detector

    def _run(self, job: Job, detector: YoloDetector) -> None:
        with _opened(job.source) as file:
            try:
                if job.media_type == "Image":
                    self._run_picture(job, detector, file)
                else:
                    self._run_video(job, detector, file)
            except Exception:
                _check_disk(file)
                raise

    def _run_picture(self, job: Job, detector: YoloDetector, file: BinaryIO) -> None:
        with _processor_time(self._start.limits.picture_seconds):
            frame = decode_picture(file, max_pixels=self._limits.picture_pixels, fit=detector.useful_side)
        self._send(Total(1))
        objects = tuple(detector.detect(frame.picture, job.confidence, self._beat))
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
                self._look_through(video, detector, job.confidence)
            except Exception:
                self._send(Beat(video.skipped))
                raise
            _check_disk(file)
            self._send(Paused(video.position, video.skipped) if video.is_paused else Finished(video.skipped))

    def _look_through(self, video: Video, detector: YoloDetector, confidence: float) -> None:
        skipped = 0
        with closing(ahead(video.frames(on_found=lambda: self._send(Total(video.total))))) as frames:
            for frame in frames:
                objects = tuple(detector.detect(frame.picture, confidence, lambda: self._beat(video.skipped)))
                if video.skipped != skipped:
                    skipped = video.skipped
                    self._send(Beat(skipped))
                self._send(FrameResult(frame.index, frame.time, objects, frame.source_frame))

    def _draw(self, drawing: Drawing) -> None:
        seconds = self._start.limits.picture_seconds if drawing.media_type == "Image" else 0
        with _opened(drawing.source) as file, _processor_time(seconds):
            picture = memoryview(draw(drawing, file, self._limits, self._beat))
        self._send(Drawn(len(picture)))
        for start in range(0, len(picture), _ONE_PIECE):
            self._channel.send(bytes(picture[start : start + _ONE_PIECE]))

    def _on_packet(self, video: Video) -> None:
        """Called in the thread that decodes: the only one that receives while a video is under way."""
        self._beat(video.skipped)
        now = time.monotonic()
        if now - self._last_look >= _LOOK_SECONDS:
            self._last_look = now
            if self._channel.wait(0):
                self._channel.receive(MAX_ORDER_BYTES)  # a Pause: nothing else is sent during a job
                video.pause()

    def _beat(self, skipped: int = 0) -> None:
        """Called for each packet and for each pass of the model, from two threads."""
        if time.monotonic() - self._last_sent >= self._beat_seconds:
            self._send(Beat(skipped))

    def _send(self, message: Message) -> None:
        with self._sending:
            self._channel.send(encode(message))
            self._last_sent = time.monotonic()


@contextmanager
def _processor_time(seconds: float) -> Iterator[None]:
    """Have the kernel end this process where the block takes more time of processors than that, 0 for any: a decoder
    that goes on and on gives no sign of life, and heeds none."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _opened(source: Path | Source) -> BinaryIO:
    match source:
        case bytes():
            return io.BytesIO(source)
        case OpenFile(fd):
            return io.BufferedReader(_StoredFile(fd))
        case Path():
            raise ValueError("a path, where an open file was to come")


class _StoredFile(io.FileIO):
    """Keeps the error with which the disk refused to be read: decoders take it for damage or the end of the media."""

    refused: OSError | None = None

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.refused = error
            raise


def _check_disk(file: BinaryIO) -> None:
    """Raise what the disk refused with, where it did."""
    raw = getattr(file, "raw", None)
    if isinstance(raw, _StoredFile) and raw.refused is not None:
        raise raw.refused


def _failure(error: Exception) -> Failure:
    if isinstance(error, MemoryError):
        return Failure(Fault.OUT_OF_MEMORY, "decoding this media takes more memory than one run may have")
    for kind, fault in _FAULTS.items():
        if isinstance(error, kind):
            return Failure(fault, str(error))
    if isinstance(error, OSError) and error.errno in _DISK_REFUSES:
        return Failure(Fault.UNREADABLE, f"the stored file cannot be read: {error.strerror}")
    _LOG.error("the detector broke", exc_info=error)
    if isinstance(error, OSError):  # its text would name the file
        return Failure(Fault.BROKEN, f"the media cannot be read: {error.strerror}")
    return Failure(Fault.BROKEN, f"the detector broke ({type(error).__name__})")
