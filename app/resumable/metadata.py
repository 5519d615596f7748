"""Parses `Upload-Metadata` of tus 1.0.0."""

import base64
import binascii
import re
from dataclasses import dataclass

from app.errors import MalformedUpload
from app.formats.parameter_values import parse_flag, parse_number
from app.media.display_name import clean_name
from app.settings import MIN_CONFIDENCE

_KEY = re.compile(r"[!-+\--~]+")  # printable ASCII, without space and comma


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """What a client says about its file; None where the service chooses."""

    name: str
    detect: bool
    confidence: float | None
    frame_interval: float | None
    rerun: bool


def parse_metadata(header: str) -> dict[str, str]:
    """Return the pairs of an `Upload-Metadata` header; a key without a value has an empty one.

    Raises MalformedUpload for bad syntax, base64 or UTF-8, and for a repeated key.
    """
    pairs: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, encoded = pair.partition(" ")
        if not _KEY.fullmatch(key) or key in pairs:
            raise MalformedUpload(f"Upload-Metadata has a key twice, or one that is not printable ASCII: {key[:80]!r}.")
        try:
            pairs[key] = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, UnicodeError) as error:
            raise MalformedUpload(f"Upload-Metadata's {key[:80]} is not UTF-8 in base64.") from error
    return pairs


def file_metadata(header: str) -> FileMetadata:
    """Return what this service uses of an `Upload-Metadata` header; other keys are ignored.

    A flag without a value is true. Raises MalformedUpload if `filename` is missing or a value is invalid.
    """
    pairs = parse_metadata(header)
    name = pairs.get("filename")
    if not name:
        raise MalformedUpload("Upload-Metadata needs a filename, in base64.")
    return FileMetadata(
        name=clean_name(name),
        detect=_flag(pairs, "detect", default=True),
        confidence=_number(pairs, "confidence", least=MIN_CONFIDENCE, maximum=1),
        frame_interval=_number(pairs, "frameInterval", above=0, maximum=3600),
        rerun=_flag(pairs, "rerun", default=False),
    )


def _flag(pairs: dict[str, str], name: str, *, default: bool) -> bool:
    return parse_flag(name, pairs[name] or "true") if name in pairs else default


def _number(pairs: dict[str, str], name: str, **bounds: float) -> float | None:
    return parse_number(name, pairs[name], **bounds) if name in pairs else None
