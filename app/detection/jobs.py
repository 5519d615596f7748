"""What a detector process is told and what it tells back.

A process that reads hostile media may be taken over by one, so what it sends is JSON: unlike a pickle, a message of it
can lie about the media, and no more.
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from app.detection.results import DetectedObject, FrameResult

MAX_MESSAGE_BYTES = 4 * 1024**2


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


@dataclass(frozen=True, slots=True)
class Total:
    """How many frames a job will give, as far as its container tells; None where it does not."""

    frames: int | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is loaded: the answer to a request for no more than that."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life between two frames; `skipped` packets of the video were corrupt so far."""

    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is done; `skipped` packets of the video were corrupt."""

    skipped: int


class Fault(StrEnum):
    """Why a job, or the loading of the model, failed."""

    UNDECODABLE = "undecodable"
    TOO_LARGE = "too-large"
    OUT_OF_MEMORY = "out-of-memory"
    UNFIT_MODEL = "unfit-model"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Failure:
    """The job failed; the reason is fit to show to a client."""

    fault: Fault
    reason: str


Message = Loaded | Total | FrameResult | Beat | Finished | Failure


def encode(message: Message) -> bytes:
    """The message as JSON, tagged with its class."""
    return json.dumps({"type": type(message).__name__, **asdict(message)}).encode()


def decode(data: bytes) -> Message:
    """The message that `encode` was given. Raises ValueError, KeyError or TypeError for anything else."""
    try:
        fields: Any = json.loads(data)
    except RecursionError as error:
        raise ValueError("a message nested too deeply") from error
    match fields["type"]:
        case "FrameResult":
            objects = tuple(_object(**found) for found in fields["objects"])
            return FrameResult(int(fields["index"]), float(fields["time"]), objects)
        case "Total":
            return Total(None if fields["frames"] is None else int(fields["frames"]))
        case "Beat":
            return Beat(int(fields["skipped"]))
        case "Loaded":
            return Loaded()
        case "Finished":
            return Finished(int(fields["skipped"]))
        case "Failure":
            return Failure(Fault(fields["fault"]), str(fields["reason"]))
        case other:
            raise ValueError(f"a message of type {other!r}")


def _object(class_num: int, label: str, **numbers: float) -> DetectedObject:
    return DetectedObject(int(class_num), str(label), **{name: float(number) for name, number in numbers.items()})
