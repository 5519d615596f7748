"""A detector's name depends on its weights, and needs no runtime."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.detection.inference.external_data import external_files
from app.detection.inference.model_file import BUILT_IN_MODEL, detector_name
from app.errors import SettingsError
from tests.detection.onnx_bytes import model as onnx_model
from tests.detection.onnx_bytes import node


def test_the_built_in_model_is_shipped_and_named_after_its_weights() -> None:
    assert detector_name(BUILT_IN_MODEL) == "nanodet_g_416-1059021c7fa8"


def test_other_weights_in_a_file_of_that_name_are_another_detector(tmp_path: Path) -> None:
    model = tmp_path / "drones.v2.onnx"
    model.write_bytes(b"one")
    first = detector_name(model)
    assert first == "drones.v2-" + hashlib.sha256(b"one").hexdigest()[:12]
    model.write_bytes(b"two")
    assert detector_name(model) != first


@pytest.mark.parametrize("name", ["missing.onnx", "."])
def test_a_model_that_cannot_be_read_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        detector_name(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


@given(st.binary(max_size=300) | st.binary(max_size=40).map(lambda tail: b"\x3a\x7f\x2a\x7d\x6a\x7b" + tail))
def test_a_file_that_is_no_model_refers_to_no_other(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    model = tmp_path_factory.getbasetemp() / "nonsense.onnx"
    model.write_bytes(content)
    assert external_files(model) == []


def test_each_file_of_weights_is_named_once(tmp_path: Path) -> None:
    model = tmp_path / "own.onnx"
    constants = {"one": np.zeros((4, 4), np.float32), "two": np.ones((2, 2), np.float32)}
    nodes = [node("Identity", ["one"], "output0")]
    model.write_bytes(onnx_model(nodes, constants, (1, 3, 64, 64), external="weights/own.bin"))
    assert external_files(model) == [tmp_path / "weights" / "own.bin"]
    with pytest.raises(SettingsError, match=r"own\.bin cannot be read"):
        detector_name(model)


def test_what_the_web_process_imports_brings_no_decoder_and_no_runtime() -> None:
    program = (
        "import sys, app.detection.inference.model_file, app.runs.detector_process, app.detection.results\n"
        "print({'numpy', 'PIL', 'av', 'onnxruntime', 'app.detection.worker'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
