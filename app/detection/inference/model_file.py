"""Names a detector from its model's files, without loading the model."""

import hashlib
from pathlib import Path

from app.detection.inference.external_data import external_files
from app.errors import SettingsError
from app.settings.detector import DEFAULT_OPTIONS, DetectorOptions

BUILT_IN_MODEL = Path(__file__).parents[1] / "models" / "nanodet_g_416.onnx"
"""The built-in weights: NanoDet-g, COCO's 80 classes, with YOLOv8's output layout."""

_MAX_STEM = 150  # of the 255 characters of a stored detector name


def detector_name(model: Path, options: DetectorOptions = DEFAULT_OPTIONS) -> str:
    """Return `<file stem>-<first 12 hex digits of the weights' SHA-256>`, and suffixes for options that change results.

    The suffixes are `-labels-<8 hex digits>` for labels other than the model's own and `-tile<pixels>` for tiling.

    Reads the whole model once. Raises SettingsError if it cannot be read.
    """
    name = f"{model.stem[:_MAX_STEM]}-{_digest(model)[:12]}"
    if options.labels is not None:
        labels = hashlib.sha256("\n".join(options.labels).encode()).hexdigest()
        name += f"-labels-{labels[:8]}"
    if options.tile is not None:
        name += f"-tile{options.tile}"
    return name


def _digest(model: Path) -> str:
    """Return the SHA-256 of the file, or that of its own and its external weights' digests."""
    try:
        digests = [_file_digest(path) for path in (model, *external_files(model))]
    except OSError as error:
        raise SettingsError(f"the model {error.filename or model} cannot be read: {error.strerror}") from error
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()
