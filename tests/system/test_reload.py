"""Reliability row 43: HUP while a file that a start reads is missing, empty or garbage."""

import shutil
import signal
from pathlib import Path

import pytest

from app.detection.inference.model_file import BUILT_IN_MODEL
from tests.eventually import eventually
from tests.system.promise import photo
from tests.system.service import Service


@pytest.mark.long
def test_a_reload_that_could_not_start_leaves_the_workers_of_before(tmp_path: Path, sqlite_url: str) -> None:
    model, labels = tmp_path / "model.onnx", tmp_path / "labels.txt"
    shutil.copy(BUILT_IN_MODEL, model)
    labels.write_text("\n".join(f"class {number}" for number in range(80)))
    service = Service(tmp_path, sqlite_url, None, DETECTOR_MODEL=str(model), DETECTOR_LABELS=str(labels))
    log = service.log
    try:
        service.start()
        assert service.process is not None
        workers = service.workers()
        faults = ((model, None), (model, b"garbage"), (labels, b""), (labels, b"one label"))
        for number, (file, content) in enumerate(faults, 1):
            kept = file.read_bytes()
            file.unlink()
            if content is not None:
                file.write_bytes(content)
            service.process.send_signal(signal.SIGHUP)
            eventually(lambda number=number: log.read_text().count("Not reloaded") == number)  # type: ignore[misc]
            assert service.workers() == workers
            assert service.upload("/media", photo(number), name="a.png").status_code == 201
            file.write_bytes(kept)
        assert "Traceback" not in service.log.read_text()
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: bool(service.workers()) and service.workers().isdisjoint(workers))
        assert service.upload("/media", photo(9), name="a.png").status_code == 201
    finally:
        service.stop()
        service.kill()
