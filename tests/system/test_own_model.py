"""The service with a model of the user's own: it starts with one that fits, and with no other."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import fork_server
from tests.api.conftest import picture
from tests.detection.onnx_bytes import constant_model
from tests.paths import ROOT
from tests.system.service import SECRET, Service

DRONE = np.array([[[12, 24, 20, 40, 0.9, 0]]], dtype=np.float32)
"""An end-to-end model's output for an input of 64 by 64 pixels."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "own.onnx"
    path.write_bytes(constant_model(DRONE, (1, 3, 64, 64), metadata={"names": "['drone']"}))
    return path


def test_a_model_that_fits_is_run_and_no_decoder_comes_into_the_server(
    model: Path, tmp_path: Path, sqlite_url: str
) -> None:
    service = Service(tmp_path, sqlite_url, None, DETECTOR_MODEL=str(model), DETECTOR_LABELS="quadcopter")
    service.start()
    try:
        answer = service.upload("/detect", picture(1))
        assert service.process is not None
        workers = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        loaded = [Path(f"/proc/{pid}/maps").read_text() for pid in (service.process.pid, *workers)]
    finally:
        service.stop()
    assert answer.status_code == 201
    assert answer.json()["annotations"][0]["detections"][0]["label"] == "quadcopter"
    assert "own-" in answer.json()["media"]["run"]["detector"]
    assert len(loaded) >= 2
    assert [name for name in ("onnxruntime", "PIL", "numpy", "av") if any(f"/{name}/" in text for text in loaded)] == []


def test_an_unfit_model_stops_the_start_with_one_line_before_any_worker(model: Path, tmp_path: Path) -> None:
    settings = {
        "JWT_SECRET_KEY": SECRET,
        "IMAGES_DIR": str(tmp_path / "images"),
        "VIDEOS_DIR": str(tmp_path / "videos"),
        "DETECTOR_MODEL": str(model),
    }
    model.write_bytes(constant_model(DRONE[..., :5], (1, 3, 64, 64), metadata={"names": "['a', 'b']"}))
    ended = fork_server.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "-b", "127.0.0.1:0", "--workers", "2"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("JWT_")} | settings,
        timeout=60,
    )
    assert ended.returncode == 1
    [line] = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("detections: the model 'own.onnx' does not fit: expected an output of [1, 6, N] or ")
    assert line.endswith("for the 2 classes of its names, found [1, 1, 5]")
    assert not (tmp_path / "images").exists()
