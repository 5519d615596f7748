"""The header fields of tus 1.0.0: those of a request, parsed strictly, and those of an answer."""

import re

from flask import Response, request, url_for
from werkzeug.http import http_date

from app.errors import MalformedUpload, UnsupportedMedia, UnsupportedProtocol
from app.models import ResumableUpload
from app.resumable.parts import CHECKSUM_ALGORITHMS, PartChecksum

VERSION = "1.0.0"
EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "checksum",
    "expiration",
    "termination",
    "concatenation",
)
PART_TYPE = "application/offset+octet-stream"
MAX_LENGTH = 1 << 62

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


def check_version() -> None:
    """Raise UnsupportedProtocol unless the client speaks this version."""
    given = request.headers.get("Tus-Resumable", "")
    if given != VERSION:
        raise UnsupportedProtocol(f"Tus-Resumable must be {VERSION}, not {given[:80]!r}.")


def has_part() -> bool:
    """Whether the body is a part of a file."""
    return request.mimetype == PART_TYPE


def check_part_type() -> None:
    """Raise UnsupportedMedia unless the body is a part of a file."""
    if not has_part():
        raise UnsupportedMedia(f"Content-Type must be {PART_TYPE}, not {request.mimetype[:80]!r}.")


def number(name: str) -> int | None:
    """A field that counts bytes; None where it is not there. Raises MalformedUpload."""
    text = request.headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < MAX_LENGTH):
        raise MalformedUpload(f"{name} must be a number of bytes, not {text[:80]!r}.")
    return int(text)


def offset() -> int:
    """Where the part begins. Raises MalformedUpload where that is not told."""
    found = number("Upload-Offset")
    if found is None:
        raise MalformedUpload("Upload-Offset is missing.")
    return found


def length_of_new() -> int | None:
    """How large a new upload is; None where the client tells that later. Raises MalformedUpload where it does neither,
    or both."""
    length, deferred = number("Upload-Length"), request.headers.get("Upload-Defer-Length")
    if deferred not in (None, "1"):
        raise MalformedUpload(f"Upload-Defer-Length must be 1, not {deferred[:80]!r}.")
    if (length is None) == (deferred is None):
        raise MalformedUpload("One of Upload-Length and Upload-Defer-Length: 1 is needed.")
    return length


def checksum() -> PartChecksum | None:
    """What the part's bytes should come to, where that is told. Raises MalformedUpload."""
    header = request.headers.get("Upload-Checksum")
    return None if header is None else PartChecksum(header)


def parts_of_final() -> list[str] | None:
    """The ids of the partial uploads of which a new one is made; None where it is not. Raises MalformedUpload."""
    concat = request.headers.get("Upload-Concat")
    if concat in (None, "partial"):
        return None
    kind, _, addresses = concat.partition(";")
    ids = [address.rstrip("/").rpartition("/")[2] for address in addresses.split()]
    if kind.strip() != "final" or not ids or not all(map(_UPLOAD_ID.fullmatch, ids)):
        raise MalformedUpload(f"Upload-Concat must be partial, or final; and addresses of uploads: {concat[:80]!r}.")
    return ids


def tell_protocol(response: Response, max_bytes: int) -> None:
    """Say what is spoken here."""
    response.headers["Tus-Version"] = VERSION
    response.headers["Tus-Extension"] = ",".join(EXTENSIONS)
    response.headers["Tus-Max-Size"] = str(max_bytes)
    response.headers["Tus-Checksum-Algorithm"] = ",".join(CHECKSUM_ALGORITHMS)


def tell_upload(response: Response, upload: ResumableUpload) -> None:
    """Say how far the upload has come, until when it may go on, and which media item it became."""
    response.headers["Upload-Offset"] = str(upload.received)
    response.headers["Cache-Control"] = "no-store"
    if upload.state == "receiving":
        response.headers["Upload-Expires"] = http_date(upload.expires_at)
    if upload.state == "complete" and upload.media_id is not None:
        response.headers["Content-Location"] = url_for("media.show", media_id=upload.media_id)


def tell_creation(response: Response, upload: ResumableUpload) -> None:
    """Say what the client said when it created the upload."""
    if upload.length is None:
        response.headers["Upload-Defer-Length"] = "1"
    else:
        response.headers["Upload-Length"] = str(upload.length)
    if upload.upload_metadata:
        response.headers["Upload-Metadata"] = upload.upload_metadata
    if upload.kind == "partial":
        response.headers["Upload-Concat"] = "partial"
    elif upload.parts is not None:
        addresses = (url_for("uploads.show", upload_id=part) for part in upload.parts.split())
        response.headers["Upload-Concat"] = f"final;{' '.join(addresses)}"
