"""An uploaded file as it comes: its name, how large it can be at most, and its bytes.

Nothing is kept: no temporary file, and never more than a few reads in memory. What is handed out counts as the whole
file only once the iteration has ended without an error.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs
from wsgiref.types import WSGIEnvironment

from werkzeug.http import parse_options_header

from app.errors import MalformedUpload, MediaTooLarge, UnsupportedMedia
from app.web.upload.content_disposition import parse_disposition
from app.web.upload.form import BESIDE_THE_FILE, FormUpload, check_content_range, check_transfer_encoding
from app.web.upload.receive_timeouts import Pace
from app.web.upload.request_body import BodySource, content_length, open_source

MINIMUM_BYTES_PER_SECOND = 1024.0
"""Slower than any link that people upload over; a client that drips a byte now and then keeps a slot no longer."""

GRACE_SECONDS = 60.0
"""What every upload may take whatever its size: twice the default idle limit, so that a bad start is no end."""


@dataclass(frozen=True, slots=True)
class UploadBody:
    """One file on its way in. `name` is as the client wrote it, not cleaned; `declared_bytes` is an upper bound for
    its size, None where the client gave none (a chunked body)."""

    name: str
    declared_bytes: int | None
    _content: Iterator[bytes | memoryview]

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The file's bytes, once, in pieces of at most READ_SIZE. Each is valid until the next is asked for.

        Raises MalformedUpload (cut off, badly framed, or empty), UploadTimedOut or MediaTooLarge.
        """
        return self._content


def check_part(environ: WSGIEnvironment) -> int | None:
    """How many bytes a part of a resumable upload has, None where it comes in chunks.

    Raises UnsupportedMedia for a body with a coding, MalformedUpload where its framing is not understood.
    """
    _refuse_codings(environ)
    return content_length(environ)


def open_part(environ: WSGIEnvironment, *, idle_timeout: float, check: Callable[[], None]) -> BodySource:
    """The body of a request that is one part of a resumable upload; nothing is read from the client before the source
    is.

    `idle_timeout` is in seconds; `check` is called every second or so until the body has been read, and what it raises
    ends it.
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
    """The upload in a POST request: the part `file` of a form, or a raw body.

    Reads a form up to its file's first byte, and nothing of a raw body; so check the token before, and what can be
    checked without the name. `idle_timeout` is in seconds; in all a body may take `grace` seconds and one more for
    each `bytes_per_second` of it. Raises MediaTooLarge (before reading, where the size is declared),
    UnsupportedMedia (a body with a Content-Encoding or a Content-Transfer-Encoding), MalformedUpload (also for a part
    of a file, which says so with a Content-Range) or UploadTimedOut.
    """
    check_content_range(environ.get("HTTP_CONTENT_RANGE"))
    _refuse_codings(environ)
    declared = content_length(environ)
    content_type, options = parse_options_header(environ.get("CONTENT_TYPE"))
    content_type = content_type.lower()
    is_form = content_type == "multipart/form-data"
    if declared is not None and declared > max_bytes + (BESIDE_THE_FILE if is_form else 0):
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


def _refuse_codings(environ: WSGIEnvironment) -> None:
    """What is packed would be stored packed, under the name of what is inside."""
    transfer = environ.get("HTTP_TRANSFER_ENCODING", "chunked").strip().lower()
    if transfer != "chunked":
        raise MalformedUpload(f"Transfer-Encoding must be chunked alone, not {transfer[:80]!r}")
    content = environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if content not in ("", "identity"):
        raise UnsupportedMedia(f"the body must come unpacked: Content-Encoding must not be {content[:80]!r}")
    check_transfer_encoding(environ.get("HTTP_CONTENT_TRANSFER_ENCODING"))


def _raw(source: BodySource) -> Iterator[bytes | memoryview]:
    while chunk := source.read():
        yield chunk


def _raw_name(environ: WSGIEnvironment) -> str:
    disposition = parse_disposition(environ.get("HTTP_CONTENT_DISPOSITION", ""))
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
