"""Headers of tus 1.0.0: strict parsing of a request's, and setting a response's."""

import re

from flask import Response, request, url_for
from werkzeug.http import http_date

from app.database.models import ResumableUpload
from app.errors import MalformedUpload, UnsupportedMedia, UnsupportedProtocol
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
    """Raise UnsupportedProtocol unless the client uses this version."""
    version = request.headers.get("Tus-Resumable", "")
    if version != VERSION:
        raise UnsupportedProtocol(f"Tus-Resumable must be {VERSION}, not {version[:80]!r}.")


def has_part() -> bool:
    """Return whether the body is a part of a file."""
    return request.mimetype == PART_TYPE


def check_part_type() -> None:
    """Raise UnsupportedMedia unless the body is a part of a file."""
    if not has_part():
        raise UnsupportedMedia(f"Content-Type must be {PART_TYPE}, not {request.mimetype[:80]!r}.")


def number(name: str) -> int | None:
    """Return a header with a byte count, None if it is absent. Raises MalformedUpload."""
    text = request.headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < MAX_LENGTH):
        raise MalformedUpload(f"{name} must be a number of bytes, not {text[:80]!r}.")
    return int(text)


def offset() -> int:
    """Return the part's offset. Raises MalformedUpload if it is missing."""
    value = number("Upload-Offset")
    if value is None:
        raise MalformedUpload("Upload-Offset is missing.")
    return value


def new_length() -> int | None:
    """Return the length of a new upload, None if it is deferred. Raises MalformedUpload unless exactly one is given."""
    length, deferred = number("Upload-Length"), request.headers.get("Upload-Defer-Length")
    if deferred not in (None, "1"):
        raise MalformedUpload(f"Upload-Defer-Length must be 1, not {deferred[:80]!r}.")
    if (length is None) == (deferred is None):
        raise MalformedUpload("Exactly one of Upload-Length and Upload-Defer-Length: 1 is required.")
    return length


def checksum() -> PartChecksum | None:
    """Return the part's expected checksum, None if absent. Raises MalformedUpload."""
    header = request.headers.get("Upload-Checksum")
    return None if header is None else PartChecksum(header)


def parts_of_final() -> list[str] | None:
    """Return the ids of the partial uploads to concatenate; None for other uploads. Raises MalformedUpload."""
    concat = request.headers.get("Upload-Concat")
    if concat in (None, "partial"):
        return None
    kind, _, addresses = concat.partition(";")
    ids = [address.rstrip("/").rpartition("/")[2] for address in addresses.split()]
    if kind.strip() != "final" or not ids or not all(map(_UPLOAD_ID.fullmatch, ids)):
        raise MalformedUpload(
            f"Upload-Concat must be partial, or final; and addresses of uploads, not {concat[:80]!r}."
        )
    return ids


def set_protocol_headers(response: Response, max_bytes: int) -> None:
    """Set the headers that describe the supported protocol."""
    response.headers["Tus-Version"] = VERSION
    response.headers["Tus-Extension"] = ",".join(EXTENSIONS)
    response.headers["Tus-Max-Size"] = str(max_bytes)
    response.headers["Tus-Checksum-Algorithm"] = ",".join(CHECKSUM_ALGORITHMS)


def set_upload_headers(response: Response, upload: ResumableUpload) -> None:
    """Set the upload's offset, its expiry, and the media item that it became."""
    response.headers["Upload-Offset"] = str(upload.received)
    response.headers["Cache-Control"] = "no-store"
    if upload.state == "receiving":
        response.headers["Upload-Expires"] = http_date(upload.expires_at)
    if upload.state == "complete" and upload.media_id is not None:
        response.headers["Content-Location"] = url_for("media.show", media_id=upload.media_id)


def set_creation_headers(response: Response, upload: ResumableUpload) -> None:
    """Set what the client sent when it created the upload."""
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
