"""Loads an ONNX model of the YOLO family with onnxruntime and checks that it can be used.

The model's input, classes and output layout are read from the model and checked with one trial run at load time. A
model that does not fit stops the start with one error line instead of producing wrong boxes.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.detection.inference.boxes import Layout, layout_of
from app.detection.inference.model_metadata import class_names, input_size, unfit_model
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
    """A loaded model that runs on one CPU thread or on the GPU. `run` may be called from several threads.

    `labels` are those of the options or else the model's own. Raises SettingsError if the model cannot be used.
    """

    def __init__(self, path: Path, options: DetectorOptions) -> None:
        self._path = path
        self._session = _session(path, options.provider)
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if options.labels is not None:
            self.labels = dict(enumerate(options.labels))
        else:
            self.labels = class_names(path, metadata)
        model_input = self._check_input()
        self._input_name: str = model_input.name
        self._input_type = _INPUT_TYPES[model_input.type]
        self.input_height, self.input_width = input_size(path, model_input.shape, metadata)
        self._output_name = self._check_output_type()
        trial_output = self._run_trial()
        self.layout = self._find_layout(
            trial_output.shape, "its names" if options.labels is None else "DETECTOR_LABELS"
        )
        check_output(path, trial_output, self.layout, self.input_height, self.input_width)

    def run(self, tensor: NDArray[np.float32]) -> NDArray[Any]:
        """Return the output for an input of [1, 3, input_height, input_width] in 0..1."""
        feed = {self._input_name: tensor.astype(self._input_type, copy=False)}
        output: NDArray[Any] = self._session.run([self._output_name], feed)[0]
        return output

    def _check_input(self) -> Any:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise unfit_model(self._path, "one input", f"{len(inputs)}: {', '.join(node.name for node in inputs)}")
        if inputs[0].type not in _INPUT_TYPES:
            raise unfit_model(self._path, "an input of float or float16", inputs[0].type)
        return inputs[0]

    def _check_output_type(self) -> str:
        output = self._session.get_outputs()[0]
        if output.type not in _OUTPUT_TYPES:
            raise unfit_model(self._path, "an output of float, float16 or double", output.type)
        name: str = output.name
        return name

    def _run_trial(self) -> NDArray[Any]:
        """Run the model on one synthetic picture, because many models do not declare their output's shape."""
        shape = (1, 3, self.input_height, self.input_width)
        try:
            return self.run(trial_input(self.input_height, self.input_width))
        except MemoryError:
            raise
        # onnxruntime's exceptions have no common base class.
        except Exception as error:
            raise unfit_model(
                self._path, f"a model that can be run on an input of {list(shape)}", _reason(error)
            ) from error

    def _find_layout(self, shape: tuple[int, ...], named_by: str) -> Layout:
        cells = sum(-(-self.input_height // stride) * -(-self.input_width // stride) for stride in _STRIDES)
        layout = layout_of(shape, len(self.labels), cells)
        if layout is None:
            classes = len(self.labels)
            shapes = dict.fromkeys(
                [f"[1, {4 + classes}, N]", f"[1, N, {4 + classes}]", f"[1, N, {5 + classes}]", "[1, N, 6]"]
            )
            raise unfit_model(
                self._path,
                f"an output of {' or '.join(shapes)} for the {classes} classes of {named_by}",
                str(list(shape)),
            )
        return layout


def _session(model: Path, provider: Provider) -> onnxruntime.InferenceSession:
    requested, available = _PROVIDERS[provider], onnxruntime.get_available_providers()
    if requested not in available:
        known = ", ".join(name for name, full_name in _PROVIDERS.items() if full_name in available)
        raise SettingsError(
            f"DETECTOR_PROVIDER is {provider}, which this onnxruntime does not have; available: {known}"
        )
    options = onnxruntime.SessionOptions()
    # One thread per run: two runs in parallel use two cores better than one run with two threads.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        # The fallback would print to standard output, where commands write their results.
        providers = list(dict.fromkeys((requested, _PROVIDERS["cpu"])))
        session = onnxruntime.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
    except MemoryError:
        raise
    # onnxruntime's exceptions have no common base class.
    except Exception as error:
        expected = f"an ONNX model that onnxruntime {onnxruntime.__version__} can load"
        raise unfit_model(model, expected, _reason(error)) from error
    if requested not in session.get_providers():  # onnxruntime includes the provider but found no device or library
        raise SettingsError(f"DETECTOR_PROVIDER is {provider}, which this machine cannot run; use cpu")
    return session


def _reason(error: Exception) -> str:
    """Return onnxruntime's message on one line, without its error codes and source locations."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed: ?)?", "", text)
    text = re.sub(r"/onnxruntime_src/\S+:\d+ .*?\) (?=[A-Z])", "", text)
    return text[:_REASON_CHARACTERS] or type(error).__name__
