"""The events of a detector process, one by one."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from PIL import Image

from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.protocol.channel import Channel
from app.detection.protocol.events import (
    MAX_EVENT_BYTES,
    Event,
    Failure,
    FailureKind,
    Finished,
    FrameCount,
    Heartbeat,
    ModelLoaded,
)
from app.detection.protocol.events import decode as decode_message
from app.detection.protocol.requests import Job, Load, OpenFile, Request, Start
from app.detection.results import FrameResult
from app.detection.worker import Worker
from app.settings import DetectorOptions
from tests.detection.clips import Clip, without_pictures

Pipe = tuple[Channel, Channel]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def said(pipe: Pipe, request: Request, model: Path = BUILT_IN_MODEL, *, beat_seconds: float = 0) -> list[Event]:
    ours, theirs = pipe
    answer(Worker(theirs, start(model, beat_seconds)), request)
    theirs.close()
    messages = list(received(ours))
    return of_the_job(messages) if isinstance(request, Job) else messages


def start(model: Path = BUILT_IN_MODEL, beat_seconds: float = 0, options: DetectorOptions | None = None) -> Start:
    limits = ProcessLimits(stall_seconds=4 * beat_seconds)
    return Start(model, MediaLimits(), limits, options or DetectorOptions())


def answer(worker: Worker, request: Request) -> None:
    """Pass the request to the worker as it would arrive: with its file open."""
    with ExitStack() as files:
        if isinstance(request, Job) and isinstance(request.source, Path):
            file = files.enter_context(request.source.open("rb"))
            request = replace(request, source=OpenFile(os.dup(file.fileno())))
        worker.handle(request)


def received(channel: Channel) -> Iterator[Event]:
    """Yield everything that was sent before the other end was closed."""
    while True:
        try:
            yield decode_message(channel.receive(MAX_EVENT_BYTES))
        except EOFError:
            return


def of_the_job(messages: list[Event]) -> list[Event]:
    """Return the events without the first, ModelLoaded."""
    assert messages[0] == ModelLoaded()
    return messages[1:]


def test_a_picture_is_announced_told_and_ended(pipe: Pipe, astronaut: Path) -> None:
    total, frame, end = said(pipe, Job(astronaut, "Image"))
    assert total == FrameCount(1)
    assert isinstance(frame, FrameResult)
    assert [found.label for found in frame.objects] == ["person"]
    assert end == Finished(skipped=0)


def test_frames_between_two_samples_are_signs_of_life(pipe: Pipe, clip: Path) -> None:
    messages = said(pipe, Job(clip, "Video", frame_interval=2.5))
    [_first, second] = [at for at, message in enumerate(messages) if isinstance(message, FrameResult)]
    assert messages[:second].count(Heartbeat()) >= 20
    assert messages[-1] == Finished(skipped=0)


@pytest.fixture
def broken(tmp_path: Path, photo: Image.Image) -> bytes:
    """A clip with four corrupt packets."""
    return without_pictures(Clip("broken.avi", codec="mjpeg").write(tmp_path, photo).read_bytes(), range(3, 7))


@pytest.mark.long
def test_packets_are_read_while_a_frame_is_processed(pipe: Pipe, tmp_path: Path, photo: Image.Image) -> None:
    """Each packet is a frame and causes a heartbeat, so that sequential processing would delay them."""
    path = Clip("motion.avi", codec="mjpeg").write(tmp_path, photo)
    messages = said(pipe, Job(path, "Video", frame_interval=0.1))
    results = [at for at, message in enumerate(messages) if isinstance(message, FrameResult)]
    read = [messages[:at].count(Heartbeat()) for at in results]
    assert len(results) == 30
    assert any(packets > told + 1 for told, packets in enumerate(read))


@pytest.mark.long
def test_corrupt_packets_are_told_at_the_end(pipe: Pipe, broken: bytes) -> None:
    messages = said(pipe, Job(broken, "Video"))
    assert messages[-1] == Finished(skipped=4)


@pytest.mark.long
def test_corrupt_packets_are_told_while_the_video_goes_on(pipe: Pipe, broken: bytes) -> None:
    """Although results arrive continuously, so that no heartbeat is due."""
    messages = said(pipe, Job(broken, "Video", frame_interval=0.1), beat_seconds=60)
    assert Heartbeat(4) in messages[: messages.index(Finished(4)) - 5]


def test_corrupt_packets_are_told_where_there_was_nothing_else(pipe: Pipe, tmp_path: Path, photo: Image.Image) -> None:
    content = Clip("broken.avi", codec="mjpeg").write(tmp_path, photo).read_bytes()
    messages = said(pipe, Job(without_pictures(content, range(30)), "Video"), beat_seconds=60)
    assert messages[-2] == Heartbeat(30)
    assert isinstance(messages[-1], Failure)
    assert messages[-1].kind is FailureKind.UNDECODABLE


def test_loading_alone_is_answered(pipe: Pipe) -> None:
    assert said(pipe, Load()) == [ModelLoaded()]


def test_an_unfit_model_is_told(pipe: Pipe, tmp_path: Path) -> None:
    (failure,) = said(pipe, Load(), tmp_path / "missing.onnx")
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.UNFIT_MODEL


@pytest.mark.parametrize("media_type", ["Image", "Video"])
def test_a_media_that_is_nothing_is_told(media_type: str, pipe: Pipe) -> None:
    (failure,) = said(pipe, Job(b"nothing", "Image" if media_type == "Image" else "Video"))
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.UNDECODABLE


def test_a_file_that_cannot_be_read_is_told_by_the_system_s_word(pipe: Pipe, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    assert said(pipe, Job(OpenFile(folder), "Image")) == [
        Failure(FailureKind.BROKEN, "the file cannot be read: Is a directory")
    ]


def test_a_path_is_not_opened(pipe: Pipe, astronaut: Path) -> None:
    ours, theirs = pipe
    Worker(theirs, start()).handle(Job(astronaut, "Image"))
    theirs.close()
    assert of_the_job(list(received(ours))) == [
        Failure(FailureKind.BROKEN, "the detector failed unexpectedly (ValueError)")
    ]


def test_a_fault_of_ours_is_told_by_its_kind_alone(pipe: Pipe, clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    (failure,) = said(pipe, Job(clip, "Video", frame_interval=0.0))
    assert failure == Failure(FailureKind.BROKEN, "the detector failed unexpectedly (ValueError)")
    assert "above 0" in caplog.text


def small_person(photo: Image.Image) -> Image.Image:
    """Return a large picture with a person too small for one pass of the model."""
    picture = Image.new("RGB", (2560, 1440), (120, 130, 110))
    picture.paste(photo.resize((180, 180)), (1500, 900))
    return picture


def labels_of(messages: list[Event]) -> list[list[str]]:
    frames = [message for message in messages if isinstance(message, FrameResult)]
    return [[found.label for found in frame.objects] for frame in frames]


@pytest.mark.long
def test_with_tiles_pictures_and_frames_are_processed_in_full_detail(
    pipe: Pipe, tmp_path: Path, photo: Image.Image
) -> None:
    small_person(photo).save(tmp_path / "large.jpg", quality=92)
    clip = tmp_path / "large.mp4"
    with av.open(clip, "w") as container:
        stream = container.add_stream("libx264", rate=2)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 2560, 1440, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.array(small_person(photo)), format="rgb24")))
        container.mux(stream.encode(None))
    ours, theirs = pipe
    worker = Worker(theirs, start(options=DetectorOptions(tile=640)))
    answer(worker, Job(tmp_path / "large.jpg", "Image", confidence=0.6))
    answer(worker, Job(clip, "Video", confidence=0.6))
    theirs.close()
    messages = list(received(ours))
    assert ["person" in found for found in labels_of(messages)] == [True, True]
    assert messages.count(Heartbeat()) >= 30  # a heartbeat from every tile
