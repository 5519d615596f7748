"""Requests that a server process sends to its detector process, and their encoding.

A file is passed as an open descriptor beside the message or, if it is in memory, as the next message; never as a path.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from app.detection.limits import MediaLimits, ProcessLimits, VideoLimits
from app.detection.results import DetectedObject
from app.settings.detector import DetectorOptions

MAX_REQUEST_BYTES = 1 << 20
MAX_CONTENT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file open for reading, passed to the detector process by its descriptor.

    The process reads from the current position and does not use the file's name, which may be gone by then. The opener
    closes the descriptor after the request was sent.
    """

    fd: int


Source = OpenFile | bytes


@dataclass(frozen=True, slots=True)
class Start:
    """The first request: the settings that hold for the life of the process."""

    model: Path
    media_limits: MediaLimits
    limits: ProcessLimits
    options: DetectorOptions


@dataclass(frozen=True, slots=True)
class Load:
    """Load the model and do nothing else."""


@dataclass(frozen=True, slots=True)
class Job:
    """Run detection on one media item: a stored file, an open file, or bytes in memory.

    `confidence` is 0..1. `frame_interval` is the time between a video's samples in seconds, above 0; pictures ignore
    it.
    """

    source: Path | OpenFile | bytes
    media_type: Literal["Image", "Video"]
    confidence: float = 0.45
    frame_interval: float = 0.5
    position: str | None = None
    """Where to continue a video, as given by Paused."""


@dataclass(frozen=True, slots=True)
class Pause:
    """End the video under way and report where another process can continue it. Otherwise without effect."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draw objects onto one frame.

    `index` is the frame's number at a sampling interval of `interval` seconds. `extension` (`.png`) selects the format.
    """

    source: Path | OpenFile | bytes
    media_type: Literal["Image", "Video"]
    interval: float
    index: int
    objects: tuple[DetectedObject, ...]
    extension: str


Request = Start | Load | Job | Drawing | Pause


def encode(request: Request) -> bytes:
    """Return the request as JSON, without its file."""
    fields = {name: value for name, value in asdict(request).items() if name != "source"}
    return json.dumps({"type": type(request).__name__, **fields}, default=str).encode()


def has_source(message: bytes) -> bool:
    """Return whether the request comes with a file, either beside its message or as the next message."""
    return json.loads(message)["type"] in (Job.__name__, Drawing.__name__)


def decode(message: bytes, source: Source | None = None) -> Request:
    """Return the request that `encode` was given, with the file that was received for it.

    Raises ValueError for anything else.
    """
    fields: dict[str, Any] = json.loads(message)
    kind = fields.pop("type")
    match kind, source:
        case "Start", None:
            return _start(**fields)
        case "Load", None:
            return Load()
        case "Pause", None:
            return Pause()
        case "Job", OpenFile() | bytes():
            return Job(source, **fields)
        case "Drawing", OpenFile() | bytes():
            objects = tuple(DetectedObject(**item) for item in fields.pop("objects"))
            return Drawing(source, objects=objects, **fields)
    raise ValueError(f"not a request: {kind!r}")


def _start(model: str, media_limits: dict[str, Any], limits: dict[str, Any], options: dict[str, Any]) -> Start:
    labels: list[str] | None = options.pop("labels")
    video = VideoLimits(**media_limits.pop("video"))
    return Start(
        Path(model),
        MediaLimits(video=video, **media_limits),
        ProcessLimits(**limits),
        DetectorOptions(labels=None if labels is None else tuple(labels), **options),
    )
