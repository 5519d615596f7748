"""The detector: an ONNX model of the YOLO family on onnxruntime.

Anything that speaks one of three output shapes serves: YOLOv8's and its successors', YOLOv5's, and the end-to-end one.
What a model expects is read from the model itself and checked when it is loaded, so that one which does not fit stops
the start with one line instead of giving false boxes later.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.detection.boxes import Boxes, Layout, layout_of, read_output, suppress
from app.detection.detector import DetectedObject, Picture
from app.detection.letterbox import Letterbox
from app.detection.model_file import BUILT_IN_MODEL, detector_name
from app.detection.runtime import onnxruntime
from app.errors import SettingsError

__all__ = ["BUILT_IN_MODEL", "YoloDetector"]

_STRIDES = (8, 16, 32)
_DEFAULT_SIDE = 640
_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class YoloDetector:
    """A Detector on one thread of the CPU, its session loaded at once; `detect` may be called from several threads.

    `labels` stands in for the model's own class names. Raises SettingsError if the model cannot be used.
    """

    def __init__(self, model: Path, labels: Mapping[int, str] | None = None) -> None:
        self.name = detector_name(model)
        self._session = _session(model)
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.labels = dict(labels) if labels is not None else class_names(model, metadata)
        entrance = self._session.get_inputs()[0]
        if entrance.type not in _INPUT_TYPES:
            raise _unfit(model, "an input of float or float16", entrance.type)
        self._input_name: str = entrance.name
        self._input_type = _INPUT_TYPES[entrance.type]
        self.input_height, self.input_width = input_size(model, entrance.shape, metadata)
        self._output_name: str = self._session.get_outputs()[0].name
        self._layout = self._checked_layout(model)

    @property
    def useful_side(self) -> int:
        """The longest side of a picture, in pixels, beyond which more detail changes nothing worth its cost."""
        return 2 * max(self.input_height, self.input_width)

    def detect(self, picture: Picture, confidence: float) -> list[DetectedObject]:
        """Boxes of at least `confidence`, most confident first, at most 300."""
        letterbox = Letterbox.around(picture, self.input_height, self.input_width)
        boxes = read_output(self._run(letterbox.fill(picture)), self._layout, confidence)
        if self._layout is not Layout.END_TO_END:
            boxes = suppress(boxes)
        return self._objects(boxes, letterbox)

    def _run(self, tensor: NDArray[np.float32]) -> NDArray[Any]:
        feed = {self._input_name: tensor.astype(self._input_type, copy=False)}
        output: NDArray[Any] = self._session.run([self._output_name], feed)[0]
        return output

    def _objects(self, boxes: Boxes, letterbox: Letterbox) -> list[DetectedObject]:
        objects = []
        fractions = letterbox.fractions(boxes.corners)
        for corners, score, class_num in zip(fractions, boxes.scores, boxes.classes, strict=True):
            left, top, right, bottom = (float(side) for side in corners)
            if right <= left or bottom <= top:
                continue
            number = int(class_num)
            objects.append(
                DetectedObject(
                    class_num=number,
                    label=self.labels.get(number, str(number)),
                    confidence=min(1.0, float(score)),
                    center_x=(left + right) / 2,
                    center_y=(top + bottom) / 2,
                    width=right - left,
                    height=bottom - top,
                )
            )
        return objects

    def _checked_layout(self, model: Path) -> Layout:
        shape = self._session.get_outputs()[0].shape
        if not all(isinstance(side, int) for side in shape):  # the model says it only when it runs
            shape = self._run(np.zeros((1, 3, self.input_height, self.input_width), dtype=np.float32)).shape
        cells = sum(-(-self.input_height // stride) * -(-self.input_width // stride) for stride in _STRIDES)
        layout = layout_of(tuple(shape), len(self.labels), cells)
        if layout is None:
            classes = len(self.labels)
            shapes = f"[1, {4 + classes}, N], [1, N, {5 + classes}] or [1, N, 6]"
            raise _unfit(model, f"an output of {shapes} for its {classes} classes", str(list(shape)))
        return layout


def _session(model: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One run, one thread: two runs side by side get more out of two cores than one run on both.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    # onnxruntime's exceptions have no base of their own.
    except Exception as error:
        raise _unfit(model, "an ONNX model", str(error).strip().splitlines()[0]) from error


def class_names(model: Path, metadata: Mapping[str, str]) -> dict[int, str]:
    """The classes by number, from the metadata's `names`: a Python dict or list as text."""
    text = metadata.get("names", "")
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        names = None
    if isinstance(names, list | tuple):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or set(names) != set(range(len(names))):
        raise _unfit(model, "class names in its metadata, `names`: {0: 'person', …}", repr(text[:80]))
    return {number: str(names[number]) for number in range(len(names))}


def input_size(model: Path, shape: list[int | str | None], metadata: Mapping[str, str]) -> tuple[int, int]:
    """Height and width of the input: as the model fixes them, else the metadata's `imgsz`, else 640."""
    match shape:
        case [1 | str() | None, 3, height, width]:
            fallback = _imgsz(metadata)
            sides = tuple(
                side if isinstance(side, int) else other for side, other in zip((height, width), fallback, strict=True)
            )
            if min(sides) > 0:
                return sides[0], sides[1]
    raise _unfit(model, "an input of [1, 3, height, width]", str(shape))


def _imgsz(metadata: Mapping[str, str]) -> tuple[int, int]:
    try:
        size = ast.literal_eval(metadata.get("imgsz", ""))
    except (ValueError, SyntaxError):
        size = None
    match size:
        case int(side):
            return side, side
        case [int(height), int(width)] | (int(height), int(width)):
            return height, width
    return _DEFAULT_SIDE, _DEFAULT_SIDE


def _unfit(model: Path, expected: str, found: str) -> SettingsError:
    return SettingsError(f"the model {model.name} does not fit: expected {expected}, found {found}")
