"""The built-in model on the shipped photos, and tiny models of every supported form."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.detection.detector import Detector
from app.detection.inference.model_file import BUILT_IN_MODEL, detector_name
from app.detection.inference.yolo import YoloDetector
from app.detection.pictures.decode import decode_picture
from app.errors import SettingsError
from app.settings import DetectorOptions
from tests.detection.onnx_bytes import Shape, constant_model, model, node

PICTURE = np.zeros((64, 64, 3), dtype=np.uint8)
TWO_CLASSES = {"names": "{0: 'person', 1: 'drone'}"}


def table(*rows: list[float]) -> NDArray[np.float32]:
    return np.array([rows], dtype=np.float32)


# In the input's pixels, 64 by 64: one drone around (16, 32), 8 wide and 16 high.
V8 = table([16, 0], [32, 0], [8, 0], [16, 0], [0.1, 0], [0.9, 0])
V5 = table([16, 32, 8, 16, 0.9, 0.1, 1.0], [0] * 7)
END_TO_END = table([12, 24, 20, 40, 0.9, 1], [0] * 6, [0] * 6)


def loaded(
    folder: Path,
    answer: NDArray[Any],
    metadata: dict[str, str] | None = None,
    shape: Shape = (1, 3, 64, 64),
    input_type: str = "float32",
) -> YoloDetector:
    path = folder / "tiny.onnx"
    path.write_bytes(constant_model(answer, shape, input_type, TWO_CLASSES if metadata is None else metadata))
    return YoloDetector(path)


def test_the_astronaut_is_one_person(detector: Detector, astronaut: Path) -> None:
    with astronaut.open("rb") as file:
        (found,) = detector.detect(decode_picture(file).picture, 0.45)
    assert found.class_num == 0
    assert found.label == "person"
    assert found.confidence == pytest.approx(0.73, abs=0.01)
    assert (found.center_x, found.center_y) == pytest.approx((0.370, 0.510), abs=0.005)
    assert (found.width, found.height) == pytest.approx((0.681, 0.964), abs=0.005)


def test_chelsea_is_one_cat(detector: Detector, chelsea: Path) -> None:
    with chelsea.open("rb") as file:
        (found,) = detector.detect(decode_picture(file).picture, 0.45)
    assert found.label == "cat"
    assert found.confidence == pytest.approx(0.57, abs=0.01)


def test_an_empty_picture_holds_nothing(detector: Detector) -> None:
    assert detector.detect(np.full((300, 500, 3), 127, dtype=np.uint8), 0.45) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4000, 3), (4000, 1, 3)])
def test_a_picture_of_any_proportions_will_do(shape: tuple[int, ...], detector: Detector) -> None:
    for found in detector.detect(np.zeros(shape, dtype=np.uint8), 0.01):
        assert 0 < found.width <= 1
        assert 0 < found.height <= 1


def test_a_lower_threshold_finds_more_and_the_most_confident_come_first(detector: Detector, astronaut: Path) -> None:
    with astronaut.open("rb") as file:
        found = detector.detect(decode_picture(file).picture, 0.3)
    confidences = [one.confidence for one in found]
    assert len(found) > 1
    assert confidences == sorted(confidences, reverse=True)
    assert min(confidences) >= 0.3


def test_the_detector_is_named_after_its_weights(detector: Detector) -> None:
    assert detector.name == detector_name(BUILT_IN_MODEL)
    assert len(detector.labels) == 80


@pytest.mark.parametrize("answer", [V8, V5, END_TO_END], ids=["v8", "v5", "end-to-end"])
@pytest.mark.parametrize("precision", [np.float32, np.float16])
def test_every_output_layout_gives_the_same_box(answer: NDArray[Any], precision: type, tmp_path: Path) -> None:
    input_type = np.dtype(precision).name
    (found,) = loaded(tmp_path, answer.astype(precision), input_type=input_type).detect(PICTURE, 0.5)
    assert found.class_num == 1
    assert found.label == "drone"
    assert found.confidence == pytest.approx(0.9, abs=0.001)
    assert (found.center_x, found.center_y, found.width, found.height) == pytest.approx((0.25, 0.5, 0.125, 0.25))


def test_boxes_of_a_wide_picture_are_fractions_of_it_and_not_of_the_input(tmp_path: Path) -> None:
    (found,) = loaded(tmp_path, V8).detect(np.zeros((50, 100, 3), dtype=np.uint8), 0.5)
    assert (found.center_x, found.center_y, found.width, found.height) == pytest.approx((0.25, 0.5, 0.125, 0.5))


def test_a_box_in_the_grey_around_the_picture_is_none(tmp_path: Path) -> None:
    answer = table([32], [4], [8], [8], [0.9], [0.1])
    assert loaded(tmp_path, answer).detect(np.zeros((50, 100, 3), dtype=np.uint8), 0.5) == []


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, (640, 640)),
        ({"imgsz": "[320, 416]"}, (320, 416)),
        ({"imgsz": "224"}, (224, 224)),
        ({"imgsz": "?"}, (640, 640)),
    ],
)
def test_dynamic_axes_take_the_size_from_the_metadata_or_640(
    metadata: dict[str, str], expected: tuple[int, int], tmp_path: Path
) -> None:
    detector = loaded(tmp_path, V8, TWO_CLASSES | metadata, shape=("batch", 3, "height", "width"))
    assert (detector.input_height, detector.input_width) == expected
    assert detector.useful_side == 2 * max(expected)


def test_an_output_whose_shape_is_known_only_when_it_runs_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "dynamic.onnx"
    reshape, empty = node("Reshape", ["images", "shape"], "reshaped"), node("Mul", ["reshaped", "zero"], "output0")
    constants: dict[str, NDArray[Any]] = {
        "shape": np.array([1, 6, -1], dtype=np.int64),
        "zero": np.zeros(1, dtype=np.float32),
    }
    path.write_bytes(
        model(
            [reshape, empty],
            constants,
            (1, 3, "height", "width"),
            output=((1, 6, "candidates"), "float32"),
            metadata=TWO_CLASSES,
        )
    )
    assert YoloDetector(path).detect(PICTURE, 0.5) == []


def test_names_may_be_a_list_or_be_given(tmp_path: Path) -> None:
    assert loaded(tmp_path, V8, {"names": "['person', 'drone']"}).labels == {0: "person", 1: "drone"}
    assert YoloDetector(tmp_path / "tiny.onnx", DetectorOptions(labels=("a", "b"))).detect(PICTURE, 0.5)[0].label == "b"


@pytest.mark.parametrize(
    ("answer", "metadata", "shape", "input_type", "words"),
    [
        (V8, {"names": "{0: 'person'}"}, (1, 3, 64, 64), "float32", ["[1, 5, N]", "1 classes", "[1, 6, 2]"]),
        (V8[0], TWO_CLASSES, (1, 3, 64, 64), "float32", ["[1, 6, N]", "[6, 2]"]),
        (V8, {}, (1, 3, 64, 64), "float32", ["names"]),
        (V8, {"names": "__import__('os').abort()"}, (1, 3, 64, 64), "float32", ["names", "abort"]),
        (V8, {"names": "{1: 'a', 2: 'b'}"}, (1, 3, 64, 64), "float32", ["names"]),
        (V8, TWO_CLASSES, (1, 1, 64, 64), "float32", ["[1, 3, height, width]", "[1, 1, 64, 64]"]),
        (V8, TWO_CLASSES, (4, 3, 64, 64), "float32", ["[1, 3, height, width]", "[4, 3, 64, 64]"]),
        (V8, TWO_CLASSES, (1, 3, 64), "float32", ["[1, 3, height, width]"]),
        (V8, TWO_CLASSES, (1, 3, 64, 64), "uint8", ["float", "uint8"]),
    ],
)
def test_a_model_that_does_not_fit_says_in_one_line_what_was_expected_and_found(
    answer: NDArray[Any], metadata: dict[str, str], shape: Shape, input_type: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as raised:
        loaded(tmp_path, answer, metadata, shape, input_type)
    line = str(raised.value)
    assert "\n" not in line
    for word in ["tiny.onnx", "expected", "found", *words]:
        assert word in line


@pytest.mark.parametrize("content", [b"", b"not a model", BUILT_IN_MODEL.read_bytes()[:100_000]])
def test_a_file_that_is_no_model_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"broken\.onnx") as raised:
        YoloDetector(path)
    assert "\n" not in str(raised.value)


@pytest.mark.long
def test_the_runtime_reports_to_nobody(tmp_path: Path) -> None:
    program = "from app.detection.inference.yolo import *; YoloDetector(BUILT_IN_MODEL)"
    # onnxruntime sends nothing if it detects a test environment.
    kept = {"PATH", "LD_LIBRARY_PATH", "LANG", "COVERAGE_PROCESS_CONFIG"}
    environment = {name: value for name, value in os.environ.items() if name in kept}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
