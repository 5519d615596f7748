"""A paused video continues with the next frame as if it had not been paused, in every container."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.detection.detector import Frame
from app.detection.video.decode import Video
from app.detection.video.position import VideoPosition
from tests.detection.clips import CONTAINERS, Clip

INTERVAL = 0.25
LONG_GROUPS = Clip("long-groups.mp4", frames=120, rate=30)
JOINED = Clip("joined.ts", frames=40)


def all_frames(path: Path, interval: float = INTERVAL) -> list[Frame]:
    with path.open("rb") as file, Video(file, interval=interval) as video:
        return list(video.frames())


def part(path: Path, position: str | None, count: int, interval: float = INTERVAL) -> tuple[list[Frame], str | None]:
    """Return that many frames, plus those before the pause takes effect, and the position; None at the end."""
    with path.open("rb") as file, Video(file, interval=interval, position=position) as video:
        frames = []
        for frame in video.frames():
            frames.append(frame)
            if len(frames) == count:
                video.pause()
        return frames, video.position if video.is_paused else None


def in_parts(path: Path, count: int, interval: float = INTERVAL) -> list[Frame]:
    frames, position = part(path, None, count, interval)
    while position is not None:
        more, position = part(path, position, count, interval)
        frames += more
    return frames


def numbers_of(frame: Frame) -> tuple[int, int | None, float]:
    return frame.index, frame.source_frame, frame.time


def assert_same(found: list[Frame], expected: list[Frame]) -> None:
    assert [numbers_of(frame) for frame in found] == [numbers_of(frame) for frame in expected]
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.picture, other.picture), one.index


@pytest.mark.parametrize("clip", [*CONTAINERS, LONG_GROUPS], ids=lambda clip: clip.name)
def test_frames_in_parts_are_the_frames_of_the_whole(clip: Clip, tmp_path: Path, photo: Image.Image) -> None:
    path = clip.write(tmp_path, photo)
    expected = all_frames(path)
    assert len(expected) > 3
    assert_same(in_parts(path, 2), expected)


def test_where_timestamps_come_twice_the_frames_are_found_by_their_number(tmp_path: Path, photo: Image.Image) -> None:
    path = JOINED.write(tmp_path, photo)
    path.write_bytes(path.read_bytes() * 2)  # the clock is reset in the middle
    expected = all_frames(path)
    assert_same(in_parts(path, 5), expected)


def test_between_two_frames_far_apart_a_pause_loses_nothing_that_was_decoded(
    tmp_path: Path, photo: Image.Image
) -> None:
    path = Clip("sparse.mp4", frames=60).write(tmp_path, photo)
    packets = iter(range(1000))

    def pause_in_between() -> None:
        if next(packets) == 30:
            video.pause()

    with path.open("rb") as file, Video(file, interval=5.5, on_packet=pause_in_between) as video:
        assert [frame.index for frame in video.frames()] == [0]
        assert video.is_paused
        left_at = VideoPosition.decode(video.position or "")
    assert left_at.index == 1
    assert (left_at.pts or 0) > 0
    rest, _ = part(path, left_at.encode(), 99, interval=5.5)
    assert_same(rest, all_frames(path, interval=5.5)[1:])


def test_the_position_is_told_to_be_found_before_the_first_frame(tmp_path: Path, photo: Image.Image) -> None:
    path = LONG_GROUPS.write(tmp_path, photo)
    _, position = part(path, None, 5)
    said: list[str] = []
    with path.open("rb") as file, Video(file, interval=INTERVAL, position=position) as video:
        said.extend(f"frame {frame.index}" for frame in video.frames(on_start=lambda: said.append("found")))
    assert said[0] == "found"
    assert said.count("found") == 1


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "[" * 999, '{"index": 1}', '{"__class__": "os"}'])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="position"):
        VideoPosition.decode(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("index", None),
        ("index", True),
        ("slot", 1.5),
        ("decoded", "1"),
        ("skipped", 2**63),
        ("pts", "\0"),
        ("pts", -(2**63) - 1),
        ("clock_start", float("inf")),
        ("clock_last", float("nan")),
        ("clock_last", "soon"),
        ("clock_last", {}),
    ],
)
def test_a_position_whose_numbers_are_none_is_refused(name: str, value: object) -> None:
    position = VideoPosition(1, 2, 3, -4, 0, 1.5, 0)
    assert VideoPosition.decode(position.encode()) == position
    with pytest.raises(ValueError, match="position"):
        VideoPosition.decode(json.dumps(json.loads(position.encode()) | {name: value}))
