"""The check of the model before a start: quick if there is nothing to check, one line if it fails."""

from pathlib import Path

import numpy as np
import pytest

from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.limits import ProcessLimits
from app.errors import SettingsError
from app.runs.model_check import check_model
from app.settings import DetectorSettings
from tests.detection.onnx_bytes import constant_model
from tests.paths import ROOT

pytestmark = pytest.mark.slow

NOBODY = np.zeros((1, 5, 8), dtype=np.float32)
"""The output of a model of one class that finds nothing."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "own.onnx"
    path.write_bytes(constant_model(NOBODY, (1, 3, 64, 64), metadata={"names": "['person']"}))
    return path


def check(**environ: object) -> None:
    check_model(DetectorSettings.from_env({name: str(value) for name, value in environ.items()}))


def test_a_model_that_fits_is_let_through_and_leaves_no_process(model: Path) -> None:
    before = children()
    check(DETECTOR_MODEL=model, DETECTOR_LABELS="somebody", DETECTOR_TILE=640)
    assert children() - before == set()


def test_the_built_in_model_is_not_loaded_for_it() -> None:
    impossible = ProcessLimits(memory_bytes=1, stall_seconds=1)
    check_model(DetectorSettings.from_env({"DETECTOR_TILE": "640"}), impossible)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"DETECTOR_LABELS": "one,two"}, ["own.onnx", "DETECTOR_LABELS", "[1, 6, N]", "found [1, 5, 8]"]),
        ({"DETECTOR_PROVIDER": "cuda"}, ["DETECTOR_PROVIDER", "cpu"]),
        ({"DETECTOR_MODEL": ROOT / "README.md"}, ["README.md", "expected an ONNX model"]),
        ({"DETECTOR_MODEL": BUILT_IN_MODEL, "DETECTOR_LABELS": "one"}, ["nanodet_g_416.onnx", "[1, 5, N]"]),
    ],
)
def test_a_model_that_does_not_fit_is_reported(environ: dict[str, object], words: list[str], model: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        check(**{"DETECTOR_MODEL": model} | environ)
    for word in words:
        assert word in str(raised.value)


def test_a_model_whose_boxes_are_nonsense_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    offsets = np.random.default_rng(1).random((1, 84, 6), dtype=np.float32)
    path.write_bytes(constant_model(offsets, (1, 3, 64, 64), metadata={"names": "['person', 'drone']"}))
    with pytest.raises(SettingsError, match=r"own\.onnx.*spread over an input of 64 by 64.*found centres from"):
        check(DETECTOR_MODEL=path)


def test_a_model_that_takes_more_memory_than_there_is_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(constant_model(NOBODY, (1, 3, 60_000, 60_000), metadata={"names": "['person']"}))
    with pytest.raises(SettingsError, match=r"own\.onnx.*too little memory"):
        check(DETECTOR_MODEL=path)


def children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    running = {int(pid) for task in tasks for pid in task.read_text().split()}
    return {pid for pid in running if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()}
