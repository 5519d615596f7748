"""The uploaded file of a request: its name, the upper bound of its size, and its bytes.

Nothing is buffered beyond a few reads, and no temporary file is used. The file is complete only when the iteration has
ended without an error.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs
from wsgiref.types import WSGIEnvironment

from werkzeug.http import parse_options_header

from app.errors import MalformedUpload, MediaTooLarge, UnsupportedMedia
from app.web.upload.content_disposition import parse_content_disposition
from app.web.upload.form import MAX_FORM_OVERHEAD, FormUpload, check_content_range, check_transfer_encoding
from app.web.upload.receive_timeouts import Pace
from app.web.upload.request_body import BodySource, content_length, open_source

MINIMUM_BYTES_PER_SECOND = 1024.0
"""Slower than any real link; a client that sends single bytes now and then loses its slot."""

GRACE_SECONDS = 60.0
"""Extra time for every upload, twice the default idle timeout, so that a slow start is tolerated."""


@dataclass(frozen=True, slots=True)
class UploadBody:
    """One file being received. `name` is the client's, not cleaned.

    `declared_bytes` is an upper bound of the size; None for a chunked body.
    """

    name: str
    declared_bytes: int | None
    _content: Iterator[bytes | memoryview]

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the file's bytes once, in chunks of at most READ_SIZE, each valid until the next one.

        Raises MalformedUpload (truncated, badly framed, or empty), UploadTimedOut or MediaTooLarge.
        """
        return self._content


def check_part(environ: WSGIEnvironment) -> int | None:
    """Return the size of a part of a resumable upload, None for a chunked body.

    Raises UnsupportedMedia for an encoded body and MalformedUpload for bad framing.
    """
    _refuse_encodings(environ)
    return content_length(environ)


def open_part(environ: WSGIEnvironment, *, idle_timeout: float, check: Callable[[], None]) -> BodySource:
    """Return the body of a request with one part of a resumable upload. Reads nothing before the source is read.

    `idle_timeout` is in seconds. `check` is called about every second until the body is read; its exception ends the
    body.
    """
    pace = Pace(idle_timeout, grace=GRACE_SECONDS, bytes_per_second=MINIMUM_BYTES_PER_SECOND, check=check)
    return open_source(environ, pace)


def open_upload(
    environ: WSGIEnvironment,
    *,
    max_bytes: int,
    idle_timeout: float,
    grace: float = GRACE_SECONDS,
    bytes_per_second: float = MINIMUM_BYTES_PER_SECOND,
) -> UploadBody:
    """Return the upload of a POST request: the part `file` of a form, or a raw body.

    Reads a form up to its file's first byte and nothing of a raw body, so check the token before. `idle_timeout` is in
    seconds; the whole body may take `grace` seconds plus one second for each `bytes_per_second`.

    Raises MediaTooLarge (before reading, if the size is declared), UnsupportedMedia (with a Content-Encoding or
    Content-Transfer-Encoding), MalformedUpload (including a Content-Range) or UploadTimedOut.
    """
    check_content_range(environ.get("HTTP_CONTENT_RANGE"))
    _refuse_encodings(environ)
    declared = content_length(environ)
    content_type, options = parse_options_header(environ.get("CONTENT_TYPE"))
    content_type = content_type.lower()
    is_form = content_type == "multipart/form-data"
    if declared is not None and declared > max_bytes + (MAX_FORM_OVERHEAD if is_form else 0):
        raise _too_large(max_bytes)
    source = open_source(environ, Pace(idle_timeout, grace=grace, bytes_per_second=bytes_per_second))
    if is_form:
        form = FormUpload(source, options.get("boundary", ""))
        return UploadBody(form.name, declared, _limited(form.content(), max_bytes))
    if content_type == "application/octet-stream" or content_type.startswith(("image/", "video/")):
        return UploadBody(_raw_name(environ), declared, _limited(_raw(source), max_bytes))
    raise MalformedUpload(
        "Content-Type must be multipart/form-data, image/*, video/* or application/octet-stream, "
        f"not {content_type[:80]!r}"
    )


def _refuse_encodings(environ: WSGIEnvironment) -> None:
    """Refuse encoded bodies, which would be stored encoded under the name of their content."""
    transfer = environ.get("HTTP_TRANSFER_ENCODING", "chunked").strip().lower()
    if transfer != "chunked":
        raise MalformedUpload(f"Transfer-Encoding must be chunked only, not {transfer[:80]!r}")
    content = environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if content not in ("", "identity"):
        raise UnsupportedMedia(f"the body must not be encoded, but Content-Encoding is {content[:80]!r}")
    check_transfer_encoding(environ.get("HTTP_CONTENT_TRANSFER_ENCODING"))


def _raw(source: BodySource) -> Iterator[bytes | memoryview]:
    while chunk := source.read():
        yield chunk


def _raw_name(environ: WSGIEnvironment) -> str:
    disposition = parse_content_disposition(environ.get("HTTP_CONTENT_DISPOSITION", ""))
    name = disposition.file_name or _name_in_query(environ.get("QUERY_STRING", ""))
    if not name:
        raise MalformedUpload("a raw body needs a file name: Content-Disposition: attachment; filename=, or ?name=")
    return name


def _name_in_query(query: str) -> str | None:
    names = parse_qs(query).get("name")
    return names[-1] if names else None


def _limited(content: Iterator[bytes | memoryview], max_bytes: int) -> Iterator[bytes | memoryview]:
    received = 0
    for chunk in content:
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(max_bytes)
        yield chunk
    if not received:
        raise MalformedUpload("the file is empty")


def _too_large(max_bytes: int) -> MediaTooLarge:
    return MediaTooLarge(f"the file has more than {max_bytes} bytes")
