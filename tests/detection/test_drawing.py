"""Boxes on pictures of any size, and the process that draws them on a media."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.detection.drawing import draw_boxes
from app.detection.drawing_process import Drawing, draw_in_process
from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.results import DetectedObject
from app.errors import DetectorFailed

PERSON = DetectedObject(0, "person", 0.9, 0.5, 0.5, 0.5, 0.5)
RED, GREEN = (230, 25, 75), (60, 180, 75)


def drawing(source: Path, target: Path, index: int = 0) -> Drawing:
    return Drawing(source, "Image" if source.suffix == ".jpg" else "Video", 0.5, index, (PERSON,), target)


def test_the_label_stands_above_its_box_or_inside_where_there_is_no_room() -> None:
    image = Image.new("RGB", (400, 400))
    draw_boxes(image, [PERSON])
    assert image.getpixel((102, 95)) == RED
    assert image.getpixel((100, 200)) == RED
    top = Image.new("RGB", (400, 400))
    draw_boxes(top, [DetectedObject(0, "person", 0.9, 0.5, 0.25, 0.5, 0.5)])
    assert top.getpixel((102, 4)) == RED


def test_the_surest_lies_on_top() -> None:
    image = Image.new("RGB", (400, 400))
    draw_boxes(image, [PERSON, DetectedObject(1, "drone", 0.5, 0.5, 0.5, 0.5, 0.5)])
    assert image.getpixel((100, 200)) == RED
    draw_boxes(image, [DetectedObject(1, "drone", 0.5, 0.5, 0.5, 0.5, 0.5), PERSON])
    assert image.getpixel((100, 200)) == GREEN


fraction = st.floats(0, 1)


@given(st.integers(1, 300), st.integers(1, 300), fraction, fraction, fraction, fraction, st.text(max_size=20))
def test_whatever_was_found_can_be_drawn(
    width: int, height: int, x: float, y: float, box_width: float, box_height: float, label: str
) -> None:
    image = Image.new("RGB", (width, height))
    draw_boxes(image, [DetectedObject(7, label, 1.0, x, y, box_width, box_height)])
    assert image.size == (width, height)


def test_a_target_that_cannot_be_written_is_told(astronaut: Path, tmp_path: Path) -> None:
    with pytest.raises(DetectorFailed, match="No such file"):
        draw_in_process(drawing(astronaut, tmp_path / "nowhere" / "drawn.png"))


def test_a_media_that_is_no_longer_what_it_was_is_told(clip: Path, astronaut: Path, tmp_path: Path) -> None:
    with pytest.raises(DetectorFailed, match="no frame 999"):
        draw_in_process(drawing(clip, tmp_path / "drawn.png", index=999))
    with pytest.raises(DetectorFailed, match="pixels"):
        draw_in_process(drawing(astronaut, tmp_path / "drawn.png"), MediaLimits(picture_pixels=10))
    assert not (tmp_path / "drawn.png").exists()


def test_a_drawing_that_takes_too_long_is_given_up(astronaut: Path, tmp_path: Path) -> None:
    with pytest.raises(DetectorFailed, match="longer than 0 seconds"):
        draw_in_process(drawing(astronaut, tmp_path / "drawn.png"), limits=ProcessLimits(run_seconds=0))
