"""Events that a detector process sends to its parent, and their encoding.

A detector process may be taken over by hostile media. Events are therefore JSON and validated field by field: unlike a
pickle, a forged event can only lie about the media.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from app.detection.results import DetectedObject, FrameResult
from app.detection.sandbox.policy import Sandbox
from app.detection.video.position import VideoPosition
from app.settings.detector import MAX_LABEL_CHARACTERS

MAX_EVENT_BYTES = 4 * 1024**2
_MAX_REASON = 1000
_MAX_WARNINGS = 8
_MAX_WARNING = 300


@dataclass(frozen=True, slots=True)
class SandboxApplied:
    """The first event: which restrictions hold. `reason` says why none could be applied."""

    sandbox: Sandbox
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DrawingReady:
    """The drawing is made. Its content of `size` bytes follows in as many messages as it takes."""

    size: int


@dataclass(frozen=True, slots=True)
class FrameCount:
    """The expected number of sampled frames of a job; None if the container does not tell."""

    frames: int | None


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """The model is loaded. Sent in answer to Load, and once before the first job begins."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The process is alive between two frames. `skipped` is the number of corrupt packets of the video so far."""

    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Paused:
    """Pause ended the video after the frames that were sent.

    `position` is where another process can continue, None for the beginning. `skipped` packets were corrupt.
    """

    position: str | None
    skipped: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is done. `skipped` packets of the video were corrupt; `warnings` say what is missing from a picture."""

    skipped: int
    warnings: tuple[str, ...] = ()


class FailureKind(StrEnum):
    """Why a job, or the loading of the model, failed."""

    UNDECODABLE = "undecodable"
    TOO_LARGE = "too-large"
    OUT_OF_MEMORY = "out-of-memory"
    UNFIT_MODEL = "unfit-model"
    NO_SANDBOX = "no-sandbox"
    UNREADABLE = "unreadable"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Failure:
    """The job failed. `reason` may be shown to a client."""

    kind: FailureKind
    reason: str


Event = SandboxApplied | DrawingReady | ModelLoaded | FrameCount | FrameResult | Heartbeat | Paused | Finished | Failure


def encode(event: Event) -> bytes:
    """Return the event as JSON, tagged with the name of its class."""
    return json.dumps({"type": type(event).__name__, **asdict(event)}).encode()


def decode(data: bytes) -> Event:
    """Return the event that `encode` was given. Raises ValueError, KeyError or TypeError for anything else."""
    try:
        fields: Any = json.loads(data)
    except RecursionError as error:
        raise ValueError("the event is nested too deeply") from error
    kind = fields["type"]
    if kind not in _DECODERS:
        raise ValueError(f"unknown event type {kind!r}")
    return _DECODERS[kind](fields)


_DECODERS: Mapping[str, Callable[[dict[str, Any]], Event]] = MappingProxyType(
    {
        "FrameResult": lambda fields: FrameResult(
            int(fields["index"]),
            _finite(fields["time"]),
            tuple(_object(**found) for found in fields["objects"]),
            int(fields["source_frame"]),
        ),
        "FrameCount": lambda fields: FrameCount(None if fields["frames"] is None else int(fields["frames"])),
        "Heartbeat": lambda fields: Heartbeat(int(fields["skipped"])),
        "ModelLoaded": lambda _fields: ModelLoaded(),
        "SandboxApplied": lambda fields: SandboxApplied(
            Sandbox(**fields["sandbox"]), _text(fields["reason"], _MAX_REASON)
        ),
        "DrawingReady": lambda fields: DrawingReady(int(fields["size"])),
        "Paused": lambda fields: Paused(_position(fields["position"]), int(fields["skipped"])),
        "Finished": lambda fields: Finished(int(fields["skipped"]), _warnings(*fields["warnings"])),
        "Failure": lambda fields: Failure(FailureKind(fields["kind"]), _text(fields["reason"], _MAX_REASON)),
    }
)


def _warnings(*texts: str) -> tuple[str, ...]:
    return tuple(_text(text, _MAX_WARNING) for text in texts[:_MAX_WARNINGS])


def _position(text: str | None) -> str | None:
    """Re-encode the position, so that only validated numbers are stored and passed to a later process."""
    return None if text is None else VideoPosition.decode(text).encode()


def _object(class_num: int, label: str, **numbers: float) -> DetectedObject:
    found = {name: _finite(number) for name, number in numbers.items()}
    return DetectedObject(int(class_num), _text(label, MAX_LABEL_CHARACTERS), **found)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return float(value)


def _text(value: Any, limit: int) -> str:
    """Cut the text and replace unprintable characters, which databases and JSON clients may not accept."""
    return "".join(character if character.isprintable() else " " for character in str(value)[:limit])
