"""Which model it is, told from its file alone: the web process names detectors without loading any."""

import hashlib
from pathlib import Path

from app.errors import SettingsError

BUILT_IN_MODEL = Path(__file__).with_name("models") / "nanodet_g_416.onnx"
"""The weights that are shipped: NanoDet-g, COCO's 80 classes, speaking YOLOv8's contract."""


def detector_name(model: Path) -> str:
    """`<file stem>-<first 12 hex digits of the SHA-256 of the weights>`; reads the whole file once.

    Raises SettingsError where the file cannot be read.
    """
    try:
        with model.open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
    except OSError as error:
        raise SettingsError(f"the model {model} cannot be read: {error.strerror}") from error
    return f"{model.stem}-{digest[:12]}"
