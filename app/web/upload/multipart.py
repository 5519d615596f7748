"""The parts of a `multipart/form-data` body (RFC 7578, RFC 2046), taken apart while its bytes come.

Content is handed on as views of the bytes that were fed in: each is searched once, with `memmem`, and none is copied
but those around a boundary. Spaces and tabs behind a boundary are transport padding, which RFC 2046 lets any relay add.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from app.errors import MalformedUpload
from app.web.upload.content_disposition import Disposition, parse_disposition
from app.web.upload.substring import position

LONGEST_BOUNDARY = 200
LONGEST_PART_HEAD = 32 * 1024
LONGEST_PADDING = 1000

_BOUNDARY = re.compile(rf"[\x20-\x7e\x80-\xff]{{1,{LONGEST_BOUNDARY}}}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FOLD = re.compile(r"\r\n[ \t]+")
_NEXT_PART = re.compile(rb"[ \t]*\r\n")
_UNDECIDED = re.compile(rb"[ \t]*\r?|-")
_LENGTH = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Part:
    """The head of one part. `headers` are by lower-case name, decoded as Latin-1."""

    disposition: Disposition
    headers: Mapping[str, str]


Event = Part | memoryview | None
"""A part begins; bytes of its content; it has ended."""


class _State(Enum):
    PREAMBLE = auto()
    BOUNDARY = auto()
    HEAD = auto()
    CONTENT = auto()
    EPILOGUE = auto()


class PartParser:
    """Takes one form apart: `feed` it every chunk, then `close` it."""

    def __init__(self, boundary: str) -> None:
        """Raises MalformedUpload for a boundary that no body can have."""
        if not _BOUNDARY.fullmatch(boundary):
            raise MalformedUpload("the form has no usable boundary")
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._state = _State.PREAMBLE
        self._held = b"\r\n"  # the first boundary may stand at the very beginning
        self._left: int | None = None  # of the part's content, where the part has a Content-Length
        self._in_part = False

    def feed(self, chunk: memoryview) -> Iterator[Event]:
        """Yield what the chunk brings; content is valid until the next event is asked for. Raises MalformedUpload."""
        rest = memoryview(self._held + chunk) if self._held else chunk
        self._held = b""
        while rest:
            before = self._state
            used, events = self._take(rest)
            yield from events
            rest = rest[used:]
            if not used and self._state is before:
                break
        self._held = bytes(rest)

    def close(self) -> None:
        """Raises MalformedUpload unless the final boundary has come."""
        if self._state is not _State.EPILOGUE:
            raise MalformedUpload("the form is malformed: it ends before its final boundary")

    def _take(self, data: memoryview) -> tuple[int, tuple[Event, ...]]:
        """How many of the bytes are done with, and what they are; no bytes and no new state means: more are needed."""
        match self._state:
            case _State.PREAMBLE:
                return self._up_to_boundary(data), ()
            case _State.BOUNDARY:
                return self._boundary(data)
            case _State.HEAD:
                return self._head(data)
            case _State.CONTENT:
                used = self._up_to_boundary(data)
                return used, (self._content(data[:used]),) if used else ()
            case _State.EPILOGUE:
                return self._epilogue(data)

    def _up_to_boundary(self, data: memoryview) -> int:
        """How many bytes surely lie before the next boundary; where it has been found, the state says so."""
        found = position(data, self._delimiter)
        if found >= 0:
            self._state = _State.BOUNDARY
            return found
        end = bytes(data[-len(self._delimiter) + 1 :])
        begun = end.rfind(b"\r")
        return len(data) - (len(end) - begun if begun >= 0 and self._delimiter.startswith(end[begun:]) else 0)

    def _boundary(self, data: memoryview) -> tuple[int, tuple[Event, ...]]:
        start = len(self._delimiter)
        behind = bytes(data[start : start + LONGEST_PADDING])
        if behind.startswith(b"--"):
            self._state, used = _State.EPILOGUE, start + 2
        elif line := _NEXT_PART.match(behind):
            self._state, used = _State.HEAD, start + line.end()
        elif len(behind) < LONGEST_PADDING and _UNDECIDED.fullmatch(behind):
            return 0, ()
        else:
            raise MalformedUpload("the form is malformed: unexpected bytes behind a boundary")
        if not self._in_part:
            return used, ()
        self._in_part = False
        if self._left:
            raise MalformedUpload("the form is malformed: a part is shorter than its Content-Length")
        return used, (None,)

    def _head(self, data: memoryview) -> tuple[int, tuple[Event, ...]]:
        head = bytes(data[: LONGEST_PART_HEAD + 4])
        end = 0 if head.startswith(b"\r\n") else head.find(b"\r\n\r\n")
        if end < 0:
            if len(head) > LONGEST_PART_HEAD:
                raise MalformedUpload(f"the form is malformed: the head of a part exceeds {LONGEST_PART_HEAD} bytes")
            return 0, ()
        part = _read_head(head[:end].decode("latin-1"))
        self._left = _length(part.headers.get("content-length"))
        self._state, self._in_part = _State.CONTENT, True
        return end + 4, (part,)

    def _content(self, content: memoryview) -> memoryview:
        if self._left is not None:
            self._left -= len(content)
            if self._left < 0:
                raise MalformedUpload("the form is malformed: a part is longer than its Content-Length")
        return content

    def _epilogue(self, data: memoryview) -> tuple[int, tuple[Event, ...]]:
        """Many clients end the last line, and relays may pad it. Anything else would be the rest of a file that happens
        to contain the boundary."""
        if bytes(data).strip(b" \t\r\n"):
            raise MalformedUpload("bytes follow the final boundary of the form")
        return len(data), ()


def _read_head(head: str) -> Part:
    headers: dict[str, str] = {}
    for line in _FOLD.sub(" ", head).split("\r\n"):
        name, colon, value = line.partition(":")
        name = name.rstrip(" \t").lower()
        if not colon or not _HEADER_NAME.fullmatch(name) or "\n" in value or "\r" in value:
            raise MalformedUpload(f"the form is malformed: a part has the header line {line[:80]!r}")
        if name in headers:
            raise MalformedUpload(f"the form is malformed: a part has two headers {name!r}")
        headers[name] = value.strip(" \t")
    disposition = parse_disposition(headers.get("content-disposition", ""))
    if disposition.kind != "form-data":
        raise MalformedUpload("the form is malformed: a part lacks Content-Disposition: form-data")
    return Part(disposition, headers)


def _length(text: str | None) -> int | None:
    if text is None:
        return None
    if not _LENGTH.fullmatch(text):
        raise MalformedUpload(f"the form is malformed: a part has the Content-Length {text[:80]!r}")
    return int(text)
