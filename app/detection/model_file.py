"""Which model it is, told from its files alone: the web process names detectors without loading any."""

import hashlib
from pathlib import Path

from app.detection.external_data import external_files
from app.errors import SettingsError
from app.settings.detector import DEFAULT_OPTIONS, DetectorOptions

BUILT_IN_MODEL = Path(__file__).with_name("models") / "nanodet_g_416.onnx"
"""The weights that are shipped: NanoDet-g, COCO's 80 classes, speaking YOLOv8's contract."""

_MAX_STEM = 150  # of the 255 characters that a run keeps of its detector's name


def detector_name(model: Path, options: DetectorOptions = DEFAULT_OPTIONS) -> str:
    """`<file stem>-<first 12 hex digits of the SHA-256 of the weights>`, and behind it whatever else changes results:
    `-labels-<8 hex digits of theirs>` where they stand in for the model's own, `-tile<pixels>` where it looks at tiles.

    Reads the whole model once. Raises SettingsError where it cannot be read.
    """
    name = f"{model.stem[:_MAX_STEM]}-{_digest(model)[:12]}"
    if options.labels is not None:
        labels = hashlib.sha256("\n".join(options.labels).encode()).hexdigest()
        name += f"-labels-{labels[:8]}"
    if options.tile is not None:
        name += f"-tile{options.tile}"
    return name


def _digest(model: Path) -> str:
    """The SHA-256 of the file, or of its and its external weights' digests."""
    try:
        digests = [_file_digest(path) for path in (model, *external_files(model))]
    except OSError as error:
        raise SettingsError(f"the model {error.filename or model} cannot be read: {error.strerror}") from error
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()
