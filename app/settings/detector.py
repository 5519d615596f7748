"""Settings of the detector, for the service and for `flask detect file`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.errors import SettingsError
from app.settings.reader import Reader

MIN_TILE = 64
MIN_CONFIDENCE = 0.01
"""The lowest threshold; below it a minute of video would give some hundred thousand boxes."""
MAX_PIXELS = 1 << 40
MAX_LABEL_CHARACTERS = 255

Provider = Literal["cpu", "cuda"]
SandboxMode = Literal["auto", "required", "off"]

_DETECTOR_VARIABLES = {"OPENBLAS_NUM_THREADS": "1"}  # a process with several threads cannot enter the sandbox
_PASSED_ON: Mapping[Provider, tuple[str, ...]] = {
    "cpu": ("LD_LIBRARY_PATH",),
    "cuda": ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
}


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """How a model is used.

    `labels` replaces the model's own class names; `tile` is the size of tiles in pixels, None without tiling; `sandbox`
    is "required", "off", or "auto" for what the kernel supports.
    """

    labels: tuple[str, ...] | None = None
    tile: int | None = None
    provider: Provider = "cpu"
    sandbox: SandboxMode = "auto"


DEFAULT_OPTIONS = DetectorOptions()
"""The model's own labels, without tiling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """The settings that every detection needs."""

    detector_model: Path | None  # None: the built-in one
    detector_options: DetectorOptions
    detector_confidence: float
    frame_interval: float
    max_picture_pixels: int

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "DetectorSettings":
        """Read and validate these settings only. Raises SettingsError for the first one that is wrong."""
        return DetectorSettings(**detector_values(Reader(environ)))


def detector_values(read: Reader) -> dict[str, Any]:
    """Return the values of DetectorSettings by name."""
    return {
        "detector_model": read.existing_file("DETECTOR_MODEL"),
        "detector_options": DetectorOptions(
            labels=_labels(read),
            tile=read.integer("DETECTOR_TILE", 0, minimum=MIN_TILE) if read.text("DETECTOR_TILE") else None,
            provider=read.either("DETECTOR_PROVIDER", "cpu", "cuda"),
            sandbox=read.one_of("DETECTOR_SANDBOX", "auto", "required", "off"),
        ),
        "detector_confidence": read.number("DETECTOR_CONFIDENCE", 0.45, least=MIN_CONFIDENCE, maximum=1),
        "frame_interval": read.number("FRAME_INTERVAL_SECONDS", 0.5, least=0.001, maximum=3600),
        "max_picture_pixels": read.integer("MAX_PICTURE_PIXELS", 1_000_000_000, minimum=1, maximum=MAX_PIXELS),
    }


def detector_environment(options: DetectorOptions, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a detector process: library paths and GPU, and none of the service's secrets."""
    read = Reader(environ)
    passed_on = {name: value for name in _PASSED_ON[options.provider] if (value := read.text(name)) is not None}
    return _DETECTOR_VARIABLES | passed_on


def _labels(read: Reader) -> tuple[str, ...] | None:
    """Read names separated by commas, or, if the text has a slash, the path of a file with a name on each line."""
    text = read.text("DETECTOR_LABELS")
    if text is None:
        return None
    names = _lines_of(read.file_name("DETECTOR_LABELS") or "") if "/" in text else text.split(",")
    labels = tuple(name.strip() for name in names)
    for number, label in enumerate(labels):
        if not 0 < len(label) <= MAX_LABEL_CHARACTERS or not label.isprintable():
            raise SettingsError(
                f"DETECTOR_LABELS must give each class a printable name of at most {MAX_LABEL_CHARACTERS} characters; "
                f"class {number} has {label[:80]!r}."
            )
    return labels


def _lines_of(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SettingsError(f"DETECTOR_LABELS must name a readable text file in UTF-8; {path!r} is not one.") from error
    if not lines:
        raise SettingsError(f"DETECTOR_LABELS must name a file with a name on each line; {path!r} is empty.")
    return lines
