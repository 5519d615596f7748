"""An ONNX model of the YOLO family, loaded by onnxruntime and checked.

What a model expects is read from the model itself and tried out once when it is loaded, so that one which does not fit
stops the start with one line instead of giving false boxes later.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.detection.inference.boxes import Layout, layout_of
from app.detection.inference.model_metadata import class_names, input_size, unfit
from app.detection.inference.output_check import check_output, trial_input
from app.detection.inference.runtime import onnxruntime
from app.errors import SettingsError
from app.settings.detector import DetectorOptions, Provider

_STRIDES = (8, 16, 32)
_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_OUTPUT_TYPES = {*_INPUT_TYPES, "tensor(double)"}
_REASON_CHARACTERS = 320
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Model:
    """A session, loaded at once, on one thread of the CPU or on the GPU; `run` may be called from several threads.

    `labels` are the options' or else the model's own. Raises SettingsError if the model cannot be used.
    """

    def __init__(self, path: Path, options: DetectorOptions) -> None:
        self._path = path
        self._session = _session(path, options.provider)
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if options.labels is not None:
            self.labels = dict(enumerate(options.labels))
        else:
            self.labels = class_names(path, metadata)
        entrance = self._entrance()
        self._input_name: str = entrance.name
        self._input_type = _INPUT_TYPES[entrance.type]
        self.input_height, self.input_width = input_size(path, entrance.shape, metadata)
        self._output_name = self._checked_output_name()
        tried = self._tried_output()
        self.layout = self._checked_layout(tried.shape, "its names" if options.labels is None else "DETECTOR_LABELS")
        check_output(path, tried, self.layout, self.input_height, self.input_width)

    def run(self, tensor: NDArray[np.float32]) -> NDArray[Any]:
        """The output for an input of [1, 3, input_height, input_width], 0..1."""
        feed = {self._input_name: tensor.astype(self._input_type, copy=False)}
        output: NDArray[Any] = self._session.run([self._output_name], feed)[0]
        return output

    def _entrance(self) -> Any:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise unfit(self._path, "one input", f"{len(inputs)}: {', '.join(one.name for one in inputs)}")
        if inputs[0].type not in _INPUT_TYPES:
            raise unfit(self._path, "an input of float or float16", inputs[0].type)
        return inputs[0]

    def _checked_output_name(self) -> str:
        output = self._session.get_outputs()[0]
        if output.type not in _OUTPUT_TYPES:
            raise unfit(self._path, "an output of float, float16 or double", output.type)
        name: str = output.name
        return name

    def _tried_output(self) -> NDArray[Any]:
        """What comes out for one picture: many models say only when they run what shape their output has."""
        shape = (1, 3, self.input_height, self.input_width)
        try:
            return self.run(trial_input(self.input_height, self.input_width))
        except MemoryError:
            raise
        # onnxruntime's exceptions have no base of their own.
        except Exception as error:
            raise unfit(self._path, f"a model that can be run on an input of {list(shape)}", _reason(error)) from error

    def _checked_layout(self, shape: tuple[int, ...], named_by: str) -> Layout:
        cells = sum(-(-self.input_height // stride) * -(-self.input_width // stride) for stride in _STRIDES)
        layout = layout_of(shape, len(self.labels), cells)
        if layout is None:
            classes = len(self.labels)
            shapes = dict.fromkeys(
                [f"[1, {4 + classes}, N]", f"[1, N, {4 + classes}]", f"[1, N, {5 + classes}]", "[1, N, 6]"]
            )
            raise unfit(
                self._path,
                f"an output of {' or '.join(shapes)} for the {classes} classes of {named_by}",
                str(list(shape)),
            )
        return layout


def _session(model: Path, provider: Provider) -> onnxruntime.InferenceSession:
    wanted, available = _PROVIDERS[provider], onnxruntime.get_available_providers()
    if wanted not in available:
        known = ", ".join(name for name, full_name in _PROVIDERS.items() if full_name in available)
        raise SettingsError(f"DETECTOR_PROVIDER is {provider}, which this onnxruntime does not have; it has: {known}")
    options = onnxruntime.SessionOptions()
    # One run, one thread: two runs side by side get more out of two cores than one run on both.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        # Its fallback would try again with another provider and say so on standard output, where results go.
        providers = list(dict.fromkeys((wanted, _PROVIDERS["cpu"])))
        session = onnxruntime.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
    except MemoryError:
        raise
    # onnxruntime's exceptions have no base of their own.
    except Exception as error:
        expected = f"an ONNX model that onnxruntime {onnxruntime.__version__} can load"
        raise unfit(model, expected, _reason(error)) from error
    if wanted not in session.get_providers():  # it is built in, but finds no device or no library
        raise SettingsError(f"DETECTOR_PROVIDER is {provider}, which cannot be used on this machine; cpu can")
    return session


def _reason(error: Exception) -> str:
    """What onnxruntime says, in one line, without its codes and the places in its sources."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed: ?)?", "", text)
    text = re.sub(r"/onnxruntime_src/\S+:\d+ .*?\) (?=[A-Z])", "", text)
    return text[:_REASON_CHARACTERS] or type(error).__name__
