"""The one file of a `multipart/form-data` body, streamed.

Whatever else the form holds is skipped within a small limit, and nothing counts as the whole file before the form is
well formed to its final boundary: bytes behind that would be a file that happens to contain the boundary.
"""

from collections.abc import Iterator

from app.errors import MalformedUpload, UnsupportedMedia
from app.web.upload.multipart import Event, Part, PartParser
from app.web.upload.request_body import BodySource

BESIDE_THE_FILE = 64 * 1024
"""Most bytes of a form that are not the file: boundaries, headers of parts, other parts."""

FILE_PART = "file"
DEFAULT_OPTIONS = ("binary", "8bit", "7bit")
"""The values of Content-Transfer-Encoding that leave the content as it is (RFC 2045)."""

_MOST_NAMED = 10
_LONGEST_SHOWN = 80


class FormUpload:
    """A form that has been read up to the content of its part `file`; `name` is that part's file name.

    Raises MalformedUpload when there is no such part, more than one, or the form is not well formed, and
    UnsupportedMedia when the part is encoded.
    """

    def __init__(self, source: BodySource, boundary: str) -> None:
        self._source = source
        self._parser = PartParser(boundary)
        self._came: list[str] = []
        self._beside = 0
        self._found = False
        self._events = self._file_events()
        self.name = self._seek_file()

    def content(self) -> Iterator[memoryview]:
        """The file's bytes. Only once this has ended was the form complete."""
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
        raise self._no_file("")

    def _file_events(self) -> Iterator[Event]:
        """The events of those parts that are the file."""
        in_file = False
        while chunk := self._source.read():
            self._beside += len(chunk)
            for event in self._parser.feed(chunk):
                if isinstance(event, Part):
                    in_file = self._is_file(event)
                if in_file:
                    yield event
                if in_file and isinstance(event, memoryview):
                    self._beside -= len(event)
            if self._beside > BESIDE_THE_FILE:
                raise self._too_much_beside()
        self._parser.close()

    def _is_file(self, part: Part) -> bool:
        name, named = part.disposition.name, bool(part.disposition.file_name)
        if name == FILE_PART and named:
            _check_part(part)
            return True
        self._came.append(f"{name[:_LONGEST_SHOWN]!r} {'with' if named else 'without'} a file name")
        return False

    def _too_much_beside(self) -> MalformedUpload:
        if not self._found:
            return self._no_file(f" in its first {BESIDE_THE_FILE} bytes")
        return MalformedUpload(f"the form has more than {BESIDE_THE_FILE} bytes beside the file")

    def _no_file(self, where: str) -> MalformedUpload:
        came = "; ".join(self._came[:_MOST_NAMED]) or "none"
        more = len(self._came) - _MOST_NAMED
        return MalformedUpload(
            f"the form has no part {FILE_PART!r} with a file name{where}; the parts that came: {came}"
            + (f"; and {more} more" if more > 0 else "")
        )


def _check_part(part: Part) -> None:
    check_transfer_encoding(part.headers.get("content-transfer-encoding"))
    check_content_range(part.headers.get("content-range"))


def check_transfer_encoding(encoding: str | None) -> None:
    """Raise UnsupportedMedia for content that would be stored encoded, under the name of what is inside."""
    if encoding is not None and encoding.strip().lower() not in DEFAULT_OPTIONS:
        raise UnsupportedMedia(
            f"the file must come as it is: Content-Transfer-Encoding must be {', '.join(DEFAULT_OPTIONS[:-1])} or "
            f"{DEFAULT_OPTIONS[-1]}, not {encoding[:_LONGEST_SHOWN]!r}"
        )


def check_content_range(content_range: str | None) -> None:
    """Raise MalformedUpload for a part of a file, which would be stored and detected as the whole."""
    if content_range is not None:
        raise MalformedUpload(
            f"Content-Range says that this is a part of a file ({content_range[:_LONGEST_SHOWN]!r}), and parts are not "
            "put together here: send the whole file in one request, without Content-Range, or by tus to /uploads"
        )
