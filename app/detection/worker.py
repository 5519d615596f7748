"""The inside of a detector process: jobs come in one at a time, results go out as they are found.

Imported only there, because it brings the decoders and the model's runtime with it. The process owns nothing that
outlives it: whatever happens in here, its parent can kill it and start another.
"""

import io
import logging
import multiprocessing
import os
import resource
import signal
import threading
import time
import warnings
from contextlib import closing
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import BinaryIO

from app.detection.ahead import ahead
from app.detection.images import decode_picture
from app.detection.jobs import Beat, Failure, Fault, Finished, Job, Loaded, Message, OpenFile, Total, encode
from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.results import FrameResult
from app.detection.video import Video
from app.detection.yolo import YoloDetector
from app.errors import DetectionsError, MediaTooLarge, SettingsError, Undecodable
from app.settings import AS_IT_IS, DetectorOptions

_LOG = logging.getLogger(__name__)
_BEAT_SECONDS = 1.0
_BEATS_BEFORE_A_STALL = 4
_FAULTS: dict[type[DetectionsError], Fault] = {
    Undecodable: Fault.UNDECODABLE,
    MediaTooLarge: Fault.TOO_LARGE,
    SettingsError: Fault.UNFIT_MODEL,
}


def serve(
    connection: Connection,
    model: Path,
    media_limits: MediaLimits,
    limits: ProcessLimits,
    options: DetectorOptions = AS_IT_IS,
) -> None:
    """Answers jobs from the connection until its other end is closed or the parent process is gone."""
    os.nice(limits.niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    if options.provider == "cpu":  # CUDA reserves far more addresses than it will ever use memory
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.filterwarnings("ignore", module="PIL")
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    beat_seconds = min(_BEAT_SECONDS, limits.stall_seconds / _BEATS_BEFORE_A_STALL)
    worker = Worker(connection, model, media_limits, beat_seconds, options)
    try:
        while True:
            worker.answer(_received(connection))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _received(connection: Connection) -> Job | None:
    job: Job | None = connection.recv()
    if job is not None and isinstance(job.source, OpenFile):  # its number is the parent's; ours comes behind the job
        return replace(job, source=OpenFile(recv_handle(connection)))
    return job


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Worker:
    """Runs jobs with a model that is loaded at the first one."""

    def __init__(
        self,
        connection: Connection,
        model: Path,
        limits: MediaLimits,
        beat_seconds: float,
        options: DetectorOptions = AS_IT_IS,
    ) -> None:
        self._connection = connection
        self._model = model
        self._options = options
        self._limits = limits
        self._beat_seconds = beat_seconds
        self._sending = threading.Lock()
        self._last_sent = time.monotonic()
        self._detector: YoloDetector | None = None

    def answer(self, job: Job | None) -> None:
        """Sends everything that the job gives and how it ended; without a job the model is loaded, no more."""
        try:
            detector = self._loaded()
            if job is None:
                self._send(Loaded())
            else:
                self._run(job, detector)
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told
            self._send(_failure(error))

    def _loaded(self) -> YoloDetector:
        if self._detector is None:
            self._detector = YoloDetector(self._model, self._options)
        return self._detector

    def _run(self, job: Job, detector: YoloDetector) -> None:
        with _opened(job.source) as file:
            if job.media_type == "Image":
                self._run_picture(job, detector, file)
            else:
                self._run_video(job, detector, file)

    def _run_picture(self, job: Job, detector: YoloDetector, file: BinaryIO) -> None:
        frame = decode_picture(file, max_pixels=self._limits.picture_pixels, fit=detector.useful_side)
        self._send(Total(1))
        objects = tuple(detector.detect(frame.picture, job.confidence, self._beat))
        self._send(FrameResult(frame.index, frame.time, objects))
        self._send(Finished(skipped=0))

    def _run_video(self, job: Job, detector: YoloDetector, file: BinaryIO) -> None:
        with Video(
            file,
            interval=job.frame_interval,
            limits=self._limits.video,
            fit=detector.useful_side,
            on_packet=lambda: self._beat(video.skipped),
        ) as video:
            self._send(Total(video.total))
            try:
                self._look_through(video, detector, job.confidence)
            except Exception:
                self._send(Beat(video.skipped))
                raise
            self._send(Finished(video.skipped))

    def _look_through(self, video: Video, detector: YoloDetector, confidence: float) -> None:
        skipped = 0
        with closing(ahead(video.frames())) as frames:
            for frame in frames:
                objects = tuple(detector.detect(frame.picture, confidence, lambda: self._beat(video.skipped)))
                if video.skipped != skipped:
                    skipped = video.skipped
                    self._send(Beat(skipped))
                self._send(FrameResult(frame.index, frame.time, objects))

    def _beat(self, skipped: int = 0) -> None:
        """Called for each packet and for each pass of the model, from two threads."""
        if time.monotonic() - self._last_sent >= self._beat_seconds:
            self._send(Beat(skipped))

    def _send(self, message: Message) -> None:
        with self._sending:
            self._connection.send_bytes(encode(message))
            self._last_sent = time.monotonic()


def _opened(source: Path | OpenFile | bytes) -> BinaryIO:
    match source:
        case bytes():
            return io.BytesIO(source)
        case OpenFile(fd):
            return os.fdopen(fd, "rb")
        case Path():
            return source.open("rb")


def _failure(error: Exception) -> Failure:
    if isinstance(error, MemoryError):
        return Failure(Fault.OUT_OF_MEMORY, "decoding this media takes more memory than one run may have")
    for kind, fault in _FAULTS.items():
        if isinstance(error, kind):
            return Failure(fault, str(error))
    _LOG.error("the detector broke", exc_info=error)
    if isinstance(error, OSError):  # its text would name the file
        return Failure(Fault.BROKEN, f"the media cannot be read: {error.strerror}")
    return Failure(Fault.BROKEN, f"the detector broke ({type(error).__name__})")
