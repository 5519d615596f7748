"""The photos, the built-in model, and clips made from them, for all detection tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from app.detection.inference.model_file import BUILT_IN_MODEL
from app.detection.inference.yolo import YoloDetector
from app.runs.detector_process import DetectorProcess
from tests.detection.clips import Clip
from tests.paths import PHOTOS


@pytest.fixture(scope="session")
def astronaut() -> Path:
    return PHOTOS / "astronaut.jpg"


@pytest.fixture(scope="session")
def chelsea() -> Path:
    return PHOTOS / "chelsea.jpg"


@pytest.fixture(scope="session")
def photo(astronaut: Path) -> Image.Image:
    return Image.open(astronaut).convert("RGB")


@pytest.fixture(scope="session")
def detector() -> YoloDetector:
    return YoloDetector(BUILT_IN_MODEL)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory, photo: Image.Image) -> Path:
    return Clip("clip.mp4").write(tmp_path_factory.mktemp("clips"), photo)


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory, photo: Image.Image) -> Path:
    """A clip of 300 frames in 30 seconds, which takes a detector seconds."""
    return Clip("long.mp4", frames=300).write(tmp_path_factory.mktemp("clips"), photo)


@pytest.fixture(scope="module")
def detector_process() -> Iterator[DetectorProcess]:
    """One detector process per test file; a process that a test ended is replaced by the next job."""
    process = DetectorProcess(BUILT_IN_MODEL)
    yield process
    process.close()
