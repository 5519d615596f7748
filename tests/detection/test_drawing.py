"""Boxes drawn on pictures of any size, and by the detector process."""

import io
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.detection.drawing import FORMATS, draw_boxes
from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.results import DetectedObject
from app.errors import DetectorFailed, MediaTooLarge, Undecodable
from app.runs.detector_process import DetectorProcess, Drawing, Job

pytestmark = pytest.mark.slow

PERSON = DetectedObject(0, "person", 0.9, 0.5, 0.5, 0.5, 0.5)
RED, GREEN = (230, 25, 75), (60, 180, 75)


def drawing(source: Path, ending: str = ".png", index: int = 0) -> Drawing:
    return Drawing(source, "Image" if source.suffix == ".jpg" else "Video", 0.5, index, (PERSON,), ending)


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


@pytest.mark.parametrize("ending", FORMATS)
def test_a_media_is_drawn_in_the_detector_s_process_which_goes_on(
    ending: str, detector_process: DetectorProcess, astronaut: Path, clip: Path
) -> None:
    for source, size in ((astronaut, (512, 512)), (clip, (320, 240))):
        drawn = Image.open(io.BytesIO(detector_process.draw(drawing(source, ending))))
        assert drawn.format == FORMATS[ending]
        assert drawn.size == size
    first = detector_process.pid
    assert len(list(detector_process.run(Job(astronaut, "Image")))) == 2
    assert detector_process.pid == first


def test_a_media_that_is_no_longer_what_it_was_is_told(
    detector_process: DetectorProcess, clip: Path, astronaut: Path
) -> None:
    with pytest.raises(Undecodable, match="no frame 999"):
        detector_process.draw(drawing(clip, index=999))
    process = DetectorProcess(BUILT_IN_MODEL, MediaLimits(picture_pixels=10))
    with closing(process), pytest.raises(MediaTooLarge, match="pixels"):
        process.draw(drawing(astronaut))
    with pytest.raises(DetectorFailed, match="No such file"):
        detector_process.draw(drawing(astronaut.with_name("gone.jpg")))


def test_a_drawing_that_takes_too_long_is_given_up(astronaut: Path) -> None:
    process = DetectorProcess(BUILT_IN_MODEL, limits=ProcessLimits(run_seconds=0))
    with closing(process), pytest.raises(MediaTooLarge, match="longer than 0 seconds"):
        process.draw(drawing(astronaut))
