"""How a server process tells its detector process what to do: the words of the messages that go that way.

A file goes as an open descriptor beside the message, or in a message of its own where it is in memory: never as a path.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.detection.limits import MediaLimits, ProcessLimits, VideoLimits
from app.detection.protocol.jobs import Drawing, Job, OpenFile, Pause
from app.detection.results import DetectedObject
from app.settings.detector import DetectorOptions

MAX_ORDER_BYTES = 1 << 20
MAX_CONTENT_BYTES = 1 << 30

Source = OpenFile | bytes


@dataclass(frozen=True, slots=True)
class Start:
    """With what a process works for as long as it lives."""

    model: Path
    media_limits: MediaLimits
    limits: ProcessLimits
    options: DetectorOptions


@dataclass(frozen=True, slots=True)
class Load:
    """Load the model, no more."""


Order = Start | Load | Job | Drawing | Pause


def encode(order: Order) -> bytes:
    """The order as JSON, without its file."""
    fields = {name: value for name, value in asdict(order).items() if name != "source"}
    return json.dumps({"type": type(order).__name__, **fields}, default=str).encode()


def has_source(message: bytes) -> bool:
    """Whether a file belongs to the order: beside its message, or as the next one."""
    return json.loads(message)["type"] in (Job.__name__, Drawing.__name__)


def decode(message: bytes, source: Source | None = None) -> Order:
    """The order that `encode` was given, with its file as it has come."""
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
            objects = tuple(DetectedObject(**one) for one in fields.pop("objects"))
            return Drawing(source, objects=objects, **fields)
    raise ValueError(f"no order: {kind!r}")


def _start(model: str, media_limits: dict[str, Any], limits: dict[str, Any], options: dict[str, Any]) -> Start:
    labels: list[str] | None = options.pop("labels")
    video = VideoLimits(**media_limits.pop("video"))
    return Start(
        Path(model),
        MediaLimits(video=video, **media_limits),
        ProcessLimits(**limits),
        DetectorOptions(labels=None if labels is None else tuple(labels), **options),
    )
