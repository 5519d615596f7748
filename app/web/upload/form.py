"""Streams the one file of a `multipart/form-data` body.

Other parts are skipped within a small limit. The file counts as complete only when the form is well formed up to its
final boundary, because bytes after it would belong to a file that happens to contain the boundary.
"""

from collections.abc import Iterator

from app.errors import MalformedUpload, UnsupportedMedia
from app.web.upload.multipart import Event, Part, PartParser
from app.web.upload.request_body import BodySource

MAX_FORM_OVERHEAD = 64 * 1024
"""The most bytes of a form apart from the file: boundaries, part headers, other parts."""

FILE_PART = "file"
IDENTITY_ENCODINGS = ("binary", "8bit", "7bit")
"""Values of Content-Transfer-Encoding that leave the content unchanged (RFC 2045)."""

_MAX_PARTS_NAMED = 10
_MAX_SHOWN = 80


class FormUpload:
    """A form read up to the content of its part `file`; `name` is the part's file name.

    Raises MalformedUpload if there is no such part, more than one, or a malformed form, and UnsupportedMedia if the
    part is encoded.
    """

    def __init__(self, source: BodySource, boundary: str) -> None:
        self._source = source
        self._parser = PartParser(boundary)
        self._other_parts: list[str] = []
        self._overhead = 0
        self._found = False
        self._events = self._file_events()
        self.name = self._seek_file()

    def content(self) -> Iterator[memoryview]:
        """Yield the file's bytes. The form is complete only when the iteration ends."""
        for event in self._events:
            if event is None:
                break
            if isinstance(event, memoryview):
                yield event
        for event in self._events:
            if isinstance(event, Part):
                raise MalformedUpload("the form has more than one file")

    def _seek_file(self) -> str:
        for event in self._events:
            if isinstance(event, Part):
                self._found = True
                return event.disposition.file_name
        raise self._missing_file_error("")

    def _file_events(self) -> Iterator[Event]:
        """Yield the events of the file parts."""
        in_file = False
        while chunk := self._source.read():
            self._overhead += len(chunk)
            for event in self._parser.feed(chunk):
                if isinstance(event, Part):
                    in_file = self._is_file(event)
                if in_file:
                    yield event
                if in_file and isinstance(event, memoryview):
                    self._overhead -= len(event)
            if self._overhead > MAX_FORM_OVERHEAD:
                raise self._overhead_error()
        self._parser.close()

    def _is_file(self, part: Part) -> bool:
        name, named = part.disposition.name, bool(part.disposition.file_name)
        if name == FILE_PART and named:
            _check_part(part)
            return True
        self._other_parts.append(f"{name[:_MAX_SHOWN]!r} {'with' if named else 'without'} a file name")
        return False

    def _overhead_error(self) -> MalformedUpload:
        if not self._found:
            return self._missing_file_error(f" in its first {MAX_FORM_OVERHEAD} bytes")
        return MalformedUpload(f"the form has more than {MAX_FORM_OVERHEAD} bytes besides the file")

    def _missing_file_error(self, where: str) -> MalformedUpload:
        received = "; ".join(self._other_parts[:_MAX_PARTS_NAMED]) or "none"
        more = len(self._other_parts) - _MAX_PARTS_NAMED
        return MalformedUpload(
            f"the form has no part {FILE_PART!r} with a file name{where}; the parts received: {received}"
            + (f"; and {more} more" if more > 0 else "")
        )


def _check_part(part: Part) -> None:
    check_transfer_encoding(part.headers.get("content-transfer-encoding"))
    check_content_range(part.headers.get("content-range"))


def check_transfer_encoding(encoding: str | None) -> None:
    """Raise UnsupportedMedia for encoded content, which would be stored encoded under the content's name."""
    if encoding is not None and encoding.strip().lower() not in IDENTITY_ENCODINGS:
        raise UnsupportedMedia(
            f"the file must not be encoded: Content-Transfer-Encoding must be {', '.join(IDENTITY_ENCODINGS[:-1])} or "
            f"{IDENTITY_ENCODINGS[-1]}, not {encoding[:_MAX_SHOWN]!r}"
        )


def check_content_range(content_range: str | None) -> None:
    """Raise MalformedUpload for a part of a file, which would otherwise be stored as a whole file."""
    if content_range is not None:
        raise MalformedUpload(
            f"Content-Range {content_range[:_MAX_SHOWN]!r} marks a part of a file: send the whole file in one request "
            "without Content-Range, or in parts by tus to /uploads"
        )
