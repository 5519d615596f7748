"""A detector's name follows its weights, and costs no runtime."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from app.detection.model_file import BUILT_IN_MODEL, detector_name
from app.errors import SettingsError


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


def test_what_the_web_process_imports_brings_no_decoder_and_no_runtime() -> None:
    program = (
        "import sys, app.detection.model_file, app.detection.process, app.detection.results\n"
        "print({'numpy', 'PIL', 'av', 'onnxruntime', 'app.detection.worker'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
