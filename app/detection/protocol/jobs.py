"""What a detector process is asked for, and what it tells back.

A process that reads hostile media may be taken over by one, so what it sends is JSON: unlike a pickle, a message of it
can lie about the media, and no more.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from app.detection.results import DetectedObject, FrameResult
from app.detection.sandbox.policy import Sandbox
from app.detection.video.position import VideoPosition
from app.settings.detector import MAX_LABEL_CHARACTERS

MAX_MESSAGE_BYTES = 4 * 1024**2
_MAX_REASON = 1000
_MAX_WARNINGS = 8
_MAX_WARNING = 300


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file open for reading, which goes to the process by its descriptor: its name may be gone before it is read.

    The process reads it from wherever its position is. It is its opener's to close, once the job was sent.
    """

    fd: int


@dataclass(frozen=True, slots=True)
class Job:
    """One media to look at: a stored file, one that is open, or bytes in memory.

    `confidence` is 0..1. `frame_interval`, above 0, is the seconds between a video's samples; pictures ignore it.
    """

    source: Path | OpenFile | bytes
    media_type: Literal["Image", "Video"]
    confidence: float = 0.45
    frame_interval: float = 0.5
    position: str | None = None
    """Where a video goes on, as Paused gave it."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Sent to the process: end the video that is under way, and say where it can go on. Without effect otherwise."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture to be made: these objects on the frame of that index, sampled every `interval` seconds, in the format
    that goes by the ending of a file's name (`.png`)."""

    source: Path | OpenFile | bytes
    media_type: Literal["Image", "Video"]
    interval: float
    index: int
    objects: tuple[DetectedObject, ...]
    ending: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """The process has given up what it does not need; said first of all. `reason`: why it could give up nothing."""

    sandbox: Sandbox
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The drawing is made, and comes next: as many bytes, in as many messages as it takes."""

    size: int


@dataclass(frozen=True, slots=True)
class Total:
    """How many frames a job will give, as far as its container tells; None where it does not."""

    frames: int | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is loaded: the answer to a request for no more than that, and said once before the first job begins."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life between two frames; `skipped` packets of the video were corrupt so far."""

    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Paused:
    """The video was ended by Pause, behind the frames that were sent; `position` is where it can go on, None where that
    is its beginning. `skipped` packets of it were corrupt."""

    position: str | None
    skipped: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is done; `skipped` packets of the video were corrupt, `warnings` say what of a picture is missing."""

    skipped: int
    warnings: tuple[str, ...] = ()


class Fault(StrEnum):
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
    """The job failed; the reason is fit to show to a client."""

    fault: Fault
    reason: str


Message = Sealed | Drawn | Loaded | Total | FrameResult | Beat | Paused | Finished | Failure


def encode(message: Message) -> bytes:
    """The message as JSON, tagged with its class."""
    return json.dumps({"type": type(message).__name__, **asdict(message)}).encode()


def decode(data: bytes) -> Message:
    """The message that `encode` was given. Raises ValueError, KeyError or TypeError for anything else."""
    try:
        fields: Any = json.loads(data)
    except RecursionError as error:
        raise ValueError("a message nested too deeply") from error
    kind = fields["type"]
    if kind not in _READERS:
        raise ValueError(f"a message of type {kind!r}")
    return _READERS[kind](fields)


_READERS: Mapping[str, Callable[[dict[str, Any]], Message]] = MappingProxyType(
    {
        "FrameResult": lambda fields: FrameResult(
            int(fields["index"]),
            _finite(fields["time"]),
            tuple(_object(**found) for found in fields["objects"]),
            int(fields["source_frame"]),
        ),
        "Total": lambda fields: Total(None if fields["frames"] is None else int(fields["frames"])),
        "Beat": lambda fields: Beat(int(fields["skipped"])),
        "Loaded": lambda _fields: Loaded(),
        "Sealed": lambda fields: Sealed(Sandbox(**fields["sandbox"]), _text(fields["reason"], _MAX_REASON)),
        "Drawn": lambda fields: Drawn(int(fields["size"])),
        "Paused": lambda fields: Paused(_position(fields["position"]), int(fields["skipped"])),
        "Finished": lambda fields: Finished(int(fields["skipped"]), _warnings(*fields["warnings"])),
        "Failure": lambda fields: Failure(Fault(fields["fault"]), _text(fields["reason"], _MAX_REASON)),
    }
)


def _warnings(*texts: str) -> tuple[str, ...]:
    return tuple(_text(text, _MAX_WARNING) for text in texts[:_MAX_WARNINGS])


def _position(text: str | None) -> str | None:
    """It is stored, and handed to a later process: of what was sent nothing but the numbers is kept."""
    return None if text is None else VideoPosition.decode(text).encode()


def _object(class_num: int, label: str, **numbers: float) -> DetectedObject:
    found = {name: _finite(number) for name, number in numbers.items()}
    return DetectedObject(int(class_num), _text(label, MAX_LABEL_CHARACTERS), **found)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a number that is none")
    return float(value)


def _text(value: Any, longest: int) -> str:
    """What databases and answers can hold of a text."""
    return "".join(character if character.isprintable() else " " for character in str(value)[:longest])
