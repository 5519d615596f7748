"""The one file of a `multipart/form-data` body, streamed.

Whatever else the form holds is skipped within a small limit, and nothing counts as the whole file before the form is
well formed to its final boundary: bytes behind that would be a file that happens to contain the boundary.
"""

from collections.abc import Iterator
from typing import Any

from multipart import _BODY, _COMPLETE, MultipartError, MultipartSegment, PushMultipartParser

from app.errors import MalformedUpload
from app.web.connection import BodySource
from app.web.disposition import file_name
from app.web.substring import position

BESIDE_THE_FILE = 64 * 1024
"""Most bytes of a form that are not the file: boundaries, headers of parts, other parts."""

_LONGEST_PART_HEADER = 16 * 1024
_LONGEST_BOUNDARY = 200


class FormUpload:
    """A form that has been read up to the content of its part `file`; `name` is that part's file name.

    Raises MalformedUpload when there is no such part, more than one, or the form is not well formed.
    """

    def __init__(self, source: BodySource, boundary: str) -> None:
        self._events = _events(source, boundary)
        self.name = self._seek_file()

    def content(self) -> Iterator[bytes | memoryview]:
        """The file's bytes. Only once this has ended was the form complete."""
        for event in self._events:
            if event is None:
                break
            yield event
        for event in self._events:
            if isinstance(event, str):
                raise MalformedUpload("the form has more than one file")

    def _seek_file(self) -> str:
        for event in self._events:
            if isinstance(event, str):
                return event
        raise MalformedUpload('the form has no part "file" with a file name')


def _file_name_of(part: MultipartSegment) -> str | None:
    if part.name != "file":
        return None
    return file_name(part.header("Content-Disposition")) or None


class _Parser(PushMultipartParser):  # type: ignore[misc]
    def take(self, chunk: memoryview) -> Iterator[Any]:
        """As `parse`, which gets to see only what a boundary may be in: its search is several times slower than the
        one here, and it copies. What lies before comes as a view."""
        plain = self._before_boundary(chunk)
        if plain:
            yield self._on_segment_payload(chunk[:plain])
        if plain < len(chunk):
            yield from self.parse(bytes(chunk[plain:]))

    def _before_boundary(self, chunk: memoryview) -> int:
        """How many of the bytes are surely a part's content."""
        if self._state is not _BODY or self._buffer:
            return 0
        boundary = position(chunk, self._delimiter)
        if boundary >= 0:
            return boundary
        end = bytes(chunk[-len(self._delimiter) :])
        start = end.rfind(b"\r")
        begun = start >= 0 and self._delimiter.startswith(end[start:])
        return len(chunk) - (len(end) - start if begun else 0)

    def epilogue(self) -> bytes | None:
        """What followed the final boundary in the bytes parsed last; None before that boundary."""
        return self._buffer if self._state is _COMPLETE else None


def _events(source: BodySource, boundary: str) -> Iterator[Any]:
    """Of each part that is a file: its name, its bytes, None at its end."""
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise MalformedUpload("the form has no usable boundary")
    try:
        # Latin-1 maps every byte to itself: file names are decoded where their header is read.
        parser = _Parser(boundary.encode(), max_header_size=_LONGEST_PART_HEADER, header_charset="latin-1")
        yield from _parse(parser, source)
        parser.close()
    except MultipartError as error:
        raise MalformedUpload(f"the form is malformed: {error}") from error


def _parse(parser: _Parser, source: BodySource) -> Iterator[Any]:
    beside, in_file = 0, False
    while chunk := source.read():
        beside += len(chunk)
        if parser.epilogue() is None:
            for event in parser.take(chunk):
                if isinstance(event, MultipartSegment):
                    name = _file_name_of(event)
                    in_file = name is not None
                    if in_file:
                        yield name
                elif in_file:
                    yield event
                    if event is None:
                        in_file = False
                    else:
                        beside -= len(event)
            behind = parser.epilogue() or b""
        else:
            behind = bytes(chunk)
        # Many clients end the last line; nothing else may follow.
        if behind.strip(b"\r\n"):
            raise MalformedUpload("bytes follow the final boundary of the form")
        if beside > BESIDE_THE_FILE:
            raise MalformedUpload(f"the form has more than {BESIDE_THE_FILE} bytes beside the file")
