"""`Upload-Metadata` as tus 1.0.0 writes it, and what this service reads of it."""

import base64
import binascii
import re
from dataclasses import dataclass

from app.display_name import clean_name
from app.errors import MalformedUpload
from app.parameter_values import parse_flag, parse_number
from app.settings import MIN_CONFIDENCE

_KEY = re.compile(r"[!-+\--~]+")  # printable ASCII, without space and comma


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """What a client said of its file; None where it leaves the choice to the service."""

    name: str
    detect: bool
    confidence: float | None
    frame_interval: float | None
    rerun: bool


def parse_metadata(header: str) -> dict[str, str]:
    """The pairs of an `Upload-Metadata` header; a key without a value has an empty one.

    Raises MalformedUpload where it is not pairs of a key and a value in base64, separated by commas, or a value is not
    UTF-8, or a key comes twice.
    """
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, encoded = pair.partition(" ")
        if not _KEY.fullmatch(key) or key in found:
            raise MalformedUpload(f"Upload-Metadata has a key twice, or one that is not printable ASCII: {key[:80]!r}.")
        try:
            found[key] = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, UnicodeError) as error:
            raise MalformedUpload(f"Upload-Metadata's {key[:80]} is not UTF-8 in base64.") from error
    return found


def file_metadata(header: str) -> FileMetadata:
    """What this service reads of an `Upload-Metadata` header; what it does not know is left alone.

    A key without a value is a flag that is set. Raises MalformedUpload where `filename` is missing or a value is not
    what it should be.
    """
    found = parse_metadata(header)
    name = found.get("filename")
    if not name:
        raise MalformedUpload("Upload-Metadata needs a filename, in base64.")
    return FileMetadata(
        name=clean_name(name),
        detect=_flag(found, "detect", default=True),
        confidence=_number(found, "confidence", least=MIN_CONFIDENCE, maximum=1),
        frame_interval=_number(found, "frameInterval", above=0, maximum=3600),
        rerun=_flag(found, "rerun", default=False),
    )


def _flag(found: dict[str, str], name: str, *, default: bool) -> bool:
    return parse_flag(name, found[name] or "true") if name in found else default


def _number(found: dict[str, str], name: str, **bounds: float) -> float | None:
    return parse_number(name, found[name], **bounds) if name in found else None
