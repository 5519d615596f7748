"""Users' models, as tiny ONNX files: each is accepted, or refused with one line that says why."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.detection.inference.model_file import detector_name
from app.detection.inference.yolo import YoloDetector
from app.errors import SettingsError
from app.settings import DetectorOptions
from tests.detection.onnx_bytes import Shape, constant_model, model, node, weights

PICTURE = np.zeros((64, 64, 3), dtype=np.uint8)
TWO_CLASSES = {"names": "{0: 'person', 1: 'drone'}"}
INPUT = (1, 3, 64, 64)
CELLS = 8 * 8 + 4 * 4 + 2 * 2
"""Grid cells of an input of 64 by 64 pixels."""

DRONE = [16, 32, 8, 16, 0.1, 0.9]
"""In the input's pixels: one drone around (16, 32), 8 wide and 16 high, as YOLOv8 says it."""


def floats(*rows: list[float]) -> NDArray[np.float32]:
    return np.array([rows], dtype=np.float32)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "tiny.onnx"
    path.write_bytes(content)
    return path


def assert_one_drone(detector: YoloDetector) -> None:
    (found,) = detector.detect(PICTURE, 0.5)
    assert found.class_num == 1
    assert found.label == "drone"
    assert found.confidence == pytest.approx(0.9, abs=0.001)
    assert (found.center_x, found.center_y, found.width, found.height) == pytest.approx((0.25, 0.5, 0.125, 0.25))


def refusal(path: Path, options: DetectorOptions | None = None) -> str:
    """Return the line that refuses a model."""
    with pytest.raises(SettingsError) as raised:
        YoloDetector(path, options or DetectorOptions())
    line = str(raised.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize("precision", [np.float16, np.float32, np.float64])
def test_a_v8_output_may_have_a_candidate_in_each_row(precision: type, tmp_path: Path) -> None:
    rows = floats(DRONE, *[[0.0] * 6] * (CELLS - 1))
    content = constant_model(rows.astype(precision), INPUT, metadata=TWO_CLASSES)
    assert_one_drone(YoloDetector(written(tmp_path, content)))


def test_six_columns_of_another_length_are_the_end_to_end_output(tmp_path: Path) -> None:
    rows = floats([12, 24, 20, 40, 0.9, 1], *[[0.0] * 6] * CELLS)
    assert_one_drone(YoloDetector(written(tmp_path, constant_model(rows, INPUT, metadata=TWO_CLASSES))))


def test_an_end_to_end_output_may_hold_no_box_at_all(tmp_path: Path) -> None:
    nothing = np.zeros((1, 0, 6), dtype=np.float32)
    detector = YoloDetector(written(tmp_path, constant_model(nothing, INPUT, metadata=TWO_CLASSES)))
    assert detector.detect(PICTURE, 0.5) == []


def test_every_axis_may_be_dynamic(tmp_path: Path) -> None:
    content = model(
        [node("Slice", ["table", "zeros", "ends"], "output0")],
        {
            "table": floats(*([value] for value in DRONE)),
            "zeros": np.zeros(3, np.int64),
            "ends": np.full(3, 9, np.int64),
        },
        ("batch", "channels", "height", "width"),
        output=(("batch", "rows", "boxes"), "float32"),
        metadata=TWO_CLASSES | {"imgsz": "[64, 64]"},
    )
    assert_one_drone(YoloDetector(written(tmp_path, content)))


def test_half_precision_goes_in_and_comes_out(tmp_path: Path) -> None:
    rows = floats(*([value] for value in DRONE)).astype(np.float16)
    content = constant_model(rows, ("n", 3, 64, 64), "float16", TWO_CLASSES)
    assert_one_drone(YoloDetector(written(tmp_path, content)))


@pytest.mark.parametrize(
    "names",
    [
        "{0: 'person', 1: 'drone'}",
        "{1: 'drone', 0: 'person'}",
        "['person', 'drone']",
        "('person', 'drone')",
        '{"0": "person", "1": "drone"}',
        '["person", "drone"]',
        '{"0": "\\u0070erson", "1": "dr\\u006fne"}',
    ],
)
def test_class_names_may_be_written_as_python_or_as_json(names: str, tmp_path: Path) -> None:
    content = constant_model(floats(*([value] for value in DRONE)), INPUT, metadata={"names": names})
    detector = YoloDetector(written(tmp_path, content))
    assert detector.labels == {0: "person", 1: "drone"}
    assert_one_drone(detector)


def test_labels_that_are_given_stand_in_for_the_model_s_and_for_none(tmp_path: Path) -> None:
    for metadata in (TWO_CLASSES, {}, {"names": "nonsense"}):
        path = written(tmp_path, constant_model(floats(*([value] for value in DRONE)), INPUT, metadata=metadata))
        (found,) = YoloDetector(path, DetectorOptions(labels=("one", "two"))).detect(PICTURE, 0.5)
        assert found.label == "two"


def test_labels_of_another_number_than_the_model_s_classes_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, constant_model(floats(*([value] for value in DRONE)), INPUT, metadata=TWO_CLASSES))
    line = refusal(path, DetectorOptions(labels=("one", "two", "three")))
    for word in ("DETECTOR_LABELS", "3 classes", "[1, 7, N]", "found [1, 6, 1]"):
        assert word in line


def test_weights_may_lie_in_a_file_beside_the_model_and_name_it_too(tmp_path: Path) -> None:
    table = {"table": floats(*([value] for value in DRONE))}
    path = written(tmp_path, constant_model(table["table"], INPUT, metadata=TWO_CLASSES, external="tiny.weights"))
    beside = tmp_path / "tiny.weights"
    beside.write_bytes(weights(table))
    first = YoloDetector(path)
    assert_one_drone(first)
    beside.write_bytes(weights({"table": table["table"] + 1}))
    assert detector_name(path) != first.name


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    table = floats(*([value] for value in DRONE))
    path = written(tmp_path, constant_model(table, INPUT, metadata=TWO_CLASSES, external="tiny.weights"))
    line = refusal(path)
    assert "tiny.weights" in line
    assert "No such file" in line


V8 = floats(*([value] for value in DRONE))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (constant_model(V8, INPUT, metadata=TWO_CLASSES, more_inputs=["sizes"]), ["one input", "2: images, sizes"]),
        (constant_model(V8.astype(np.int64), INPUT, metadata=TWO_CLASSES), ["output of float", "int64"]),
        (constant_model(V8, INPUT, metadata=TWO_CLASSES, opset=99), ["onnxruntime 1.", "can load", "opset"]),
        (constant_model(V8, INPUT, metadata={}), ["DETECTOR_LABELS", "found none"]),
        (constant_model(V8, INPUT, metadata={"names": '["person", null, 3]'}), ["3 classes of its names"]),
        (constant_model(V8, INPUT, metadata={"names": "['person', '']"}), ["printable", "''"]),
        (constant_model(V8, INPUT, metadata={"names": "['a', 'b\\x00']"}), ["printable", "x00"]),
        (constant_model(V8, INPUT, metadata={"names": f"['a', '{'b' * 256}']"}), ["at most 255"]),
        (
            model([node("Nonsense", ["images"], "output0")], {}, INPUT, output=(INPUT, "float32")),
            ["can load", "Nonsense"],
        ),
        (
            model(
                [node("Add", ["images", "table"], "output0")],
                {"table": np.zeros((1, 3, 5, 5), np.float32)},
                ("n", 3, "h", "w"),
                output=(("a", "b", "c", "d"), "float32"),
                metadata=TWO_CLASSES,
            ),
            ["run on an input of [1, 3, 640, 640]"],
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(content: bytes, words: list[str], tmp_path: Path) -> None:
    line = refusal(written(tmp_path, content))
    for word in ("tiny.onnx", "expected", "found", *words):
        assert word in line


def test_onnxruntime_itself_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = constant_model(V8, INPUT, metadata=TWO_CLASSES)
    for path in (written(tmp_path, content[:-5]), written(tmp_path, content.replace(b"Identity", b"Ident\xffty"))):
        refusal(path)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_answers_otherwise_than_it_declares_is_refused(tmp_path: Path) -> None:
    content = model(
        [node("Identity", ["table"], "output0")],
        {"table": V8[:, :5]},
        ("n", 3, 64, 64),
        output=(("n", 6, "boxes"), "float32"),
        metadata=TWO_CLASSES,
    )
    assert "tiny.onnx" in refusal(written(tmp_path, content))


@pytest.mark.parametrize("shape", [(1, 3, 0, 64), (1, 3, 64, 64, 1), ()])
def test_an_input_of_no_picture_s_shape_is_refused(shape: Shape, tmp_path: Path) -> None:
    assert "tiny.onnx" in refusal(written(tmp_path, constant_model(V8, shape, metadata=TWO_CLASSES)))


def test_a_provider_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = written(tmp_path, constant_model(V8, INPUT, metadata=TWO_CLASSES))
    line = refusal(path, DetectorOptions(provider="cuda"))
    assert "DETECTOR_PROVIDER" in line
    assert "available: cpu" in line


@pytest.mark.parametrize("class_number", [-1, 1e9, float("nan"), float("inf")])
def test_a_class_that_cannot_be_is_no_detection(class_number: float, tmp_path: Path) -> None:
    rows = floats([12, 24, 20, 40, 0.9, class_number], [12, 24, 20, 40, 0.8, 1])
    detector = YoloDetector(written(tmp_path, constant_model(rows, INPUT, metadata=TWO_CLASSES)))
    assert [found.confidence for found in detector.detect(PICTURE, 0.5)] == pytest.approx([0.8])


def test_a_class_without_a_name_is_called_by_its_number(tmp_path: Path) -> None:
    rows = floats([12, 24, 20, 40, 0.9, 7])
    detector = YoloDetector(written(tmp_path, constant_model(rows, INPUT, metadata=TWO_CLASSES)))
    assert [found.label for found in detector.detect(PICTURE, 0.5)] == ["7"]


def test_boxes_outside_the_picture_take_no_others_room(tmp_path: Path) -> None:
    outside = [[-100 - 50.0 * number, 32, 8, 16, 0.1, 0.99] for number in range(400)]
    columns = floats(*outside, DRONE).transpose(0, 2, 1)
    assert_one_drone(YoloDetector(written(tmp_path, constant_model(columns, INPUT, metadata=TWO_CLASSES))))
