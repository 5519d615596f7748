"""A model of another kind is refused at the start, with one line that says what was found."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.detection.inference.boxes import Floats, Layout
from app.detection.inference.output_check import check_output, trial_input
from app.detection.inference.yolo import YoloDetector
from app.errors import SettingsError
from tests.detection.onnx_bytes import constant_model

SIDE = 64
GRID = [(float(x), float(y)) for stride in (8, 16, 32) for y in range(0, SIDE, stride) for x in range(0, SIDE, stride)]
CELLS = len(GRID)


def sound(scores: int = 2) -> NDArray[np.float32]:
    """Return a valid output: a candidate for each cell with low confidence, so that nothing is detected."""
    table = np.full((CELLS, 4 + scores), 0.01, dtype=np.float32)
    table[:, :2], table[:, 2:4] = np.array(GRID) + 4, 12
    return table


def refusal(table: Floats, layout: Layout) -> str:
    with pytest.raises(SettingsError) as raised:
        check_output(Path("own.onnx"), table[None], layout, SIDE, SIDE)
    line = str(raised.value)
    assert line.isprintable()
    assert "own.onnx" in line
    assert "DETECTOR_MODEL" in line
    return line


def test_a_model_that_finds_nothing_is_let_through() -> None:
    check_output(Path("own.onnx"), sound()[None], Layout.V8_TRANSPOSED, SIDE, SIDE)
    check_output(Path("own.onnx"), sound().T[None], Layout.V8, SIDE, SIDE)
    check_output(Path("own.onnx"), sound(3)[None], Layout.V5, SIDE, SIDE)
    for rows in (0, 1, 300):
        check_output(Path("own.onnx"), np.zeros((1, rows, 6), np.float32), Layout.END_TO_END, SIDE, SIDE)


def test_boxes_that_are_not_decoded_are_refused() -> None:
    """YOLOX exports offsets within a cell and logarithms of sizes."""
    random = np.random.default_rng(1)
    table = sound(3)
    table[:, :4] = random.normal(0, 1, (CELLS, 4))
    assert "sizes from -" in refusal(table, Layout.V5)
    table[:, 2:4] = abs(table[:, 2:4])
    line = refusal(table, Layout.V5)
    assert "spread over an input of 64 by 64" in line
    assert "centres from (-" in line


def test_boxes_in_fractions_of_the_input_are_refused() -> None:
    table = sound()
    table[:, :4] /= SIDE
    assert "centres from (0.0625, 0.0625) to (0.938, 0.938)" in refusal(table, Layout.V8_TRANSPOSED)


@pytest.mark.parametrize("value", [-3.5, 7.25])
def test_scores_that_are_none_are_refused(value: float) -> None:
    table = sound()
    table[3, 5] = value
    assert f"{value:.3g}" in refusal(table.T, Layout.V8)


def test_corners_that_are_centres_are_refused() -> None:
    """With centre, width and height, the second corner precedes the first."""
    table = np.hstack([sound(0), np.full((CELLS, 1), 0.3), np.zeros((CELLS, 1))]).astype(np.float32)
    assert "width and a height above 0" in refusal(table, Layout.END_TO_END)


def test_what_is_not_finite_says_nothing() -> None:
    table = sound()
    table[0], table[1, 4] = np.nan, np.inf
    check_output(Path("own.onnx"), table[None], Layout.V8_TRANSPOSED, SIDE, SIDE)


def test_the_start_is_refused_by_a_model_file(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    names = {"names": "['person', 'drone']"}
    path.write_bytes(constant_model((sound() / SIDE)[None], (1, 3, SIDE, SIDE), metadata=names))
    with pytest.raises(SettingsError, match=r"own\.onnx.*spread over an input"):
        YoloDetector(path)
    path.write_bytes(constant_model(sound()[None], (1, 3, SIDE, SIDE), metadata=names))
    assert YoloDetector(path).detect(np.zeros((SIDE, SIDE, 3), np.uint8), 0.5) == []


def test_the_picture_of_the_trial_is_always_the_same_and_an_input() -> None:
    picture = trial_input(48, 64)
    assert picture.shape == (1, 3, 48, 64)
    assert picture.dtype == np.float32
    assert (picture.min(), picture.max()) >= (0, 0)
    assert picture.max() <= 1
    assert np.array_equal(picture, trial_input(48, 64))
