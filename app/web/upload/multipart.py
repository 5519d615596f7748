"""Incremental parser of `multipart/form-data` bodies (RFC 7578, RFC 2046).

Content is returned as views of the received bytes, which are searched once with `memmem` and copied only around
boundaries. Spaces and tabs after a boundary are transport padding, which RFC 2046 allows.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from app.errors import MalformedUpload
from app.web.upload.content_disposition import ContentDisposition, parse_content_disposition
from app.web.upload.substring import position

MAX_BOUNDARY = 200
MAX_PART_HEAD = 32 * 1024
MAX_PADDING = 1000

_BOUNDARY = re.compile(rf"[\x20-\x7e\x80-\xff]{{1,{MAX_BOUNDARY}}}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FOLD = re.compile(r"\r\n[ \t]+")
_NEXT_PART = re.compile(rb"[ \t]*\r\n")
_UNDECIDED = re.compile(rb"[ \t]*\r?|-")
_LENGTH = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Part:
    """The head of one part. `headers` are by lower-case name, decoded as Latin-1."""

    disposition: ContentDisposition
    headers: Mapping[str, str]


Event = Part | memoryview | None
"""The start of a part, bytes of its content, or None for its end."""


class _State(Enum):
    PREAMBLE = auto()
    BOUNDARY = auto()
    HEAD = auto()
    CONTENT = auto()
    EPILOGUE = auto()


class PartParser:
    """Parses one form: call `feed` with every chunk, then `close`."""

    def __init__(self, boundary: str) -> None:
        """Raises MalformedUpload for an invalid boundary."""
        if not _BOUNDARY.fullmatch(boundary):
            raise MalformedUpload("the form has no usable boundary")
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._state = _State.PREAMBLE
        self._pending = b"\r\n"  # the first boundary may be at the very beginning
        self._left: int | None = None  # remaining bytes of a part with a Content-Length
        self._in_part = False

    def feed(self, chunk: memoryview) -> Iterator[Event]:
        """Yield the events of a chunk. Content is valid until the next event. Raises MalformedUpload."""
        rest = memoryview(self._pending + chunk) if self._pending else chunk
        self._pending = b""
        while rest:
            before = self._state
            used, events = self._take(rest)
            yield from events
            rest = rest[used:]
            if not used and self._state is before:
                break
        self._pending = bytes(rest)

    def close(self) -> None:
        """Raise MalformedUpload unless the final boundary was received."""
        if self._state is not _State.EPILOGUE:
            raise MalformedUpload("the form is malformed: it ends before its final boundary")

    def _take(self, data: memoryview) -> tuple[int, tuple[Event, ...]]:
        """Return how many bytes were consumed, and their events. More bytes are needed if nothing was consumed."""
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
        """Return how many bytes certainly precede the next boundary; the state changes if it was found."""
        found = position(data, self._delimiter)
        if found >= 0:
            self._state = _State.BOUNDARY
            return found
        end = bytes(data[-len(self._delimiter) + 1 :])
        begun = end.rfind(b"\r")
        return len(data) - (len(end) - begun if begun >= 0 and self._delimiter.startswith(end[begun:]) else 0)

    def _boundary(self, data: memoryview) -> tuple[int, tuple[Event, ...]]:
        start = len(self._delimiter)
        following = bytes(data[start : start + MAX_PADDING])
        if following.startswith(b"--"):
            self._state, used = _State.EPILOGUE, start + 2
        elif line := _NEXT_PART.match(following):
            self._state, used = _State.HEAD, start + line.end()
        elif len(following) < MAX_PADDING and _UNDECIDED.fullmatch(following):
            return 0, ()
        else:
            raise MalformedUpload("the form is malformed: unexpected bytes after a boundary")
        if not self._in_part:
            return used, ()
        self._in_part = False
        if self._left:
            raise MalformedUpload("the form is malformed: a part is shorter than its Content-Length")
        return used, (None,)

    def _head(self, data: memoryview) -> tuple[int, tuple[Event, ...]]:
        head = bytes(data[: MAX_PART_HEAD + 4])
        end = 0 if head.startswith(b"\r\n") else head.find(b"\r\n\r\n")
        if end < 0:
            if len(head) > MAX_PART_HEAD:
                raise MalformedUpload(f"the form is malformed: the head of a part exceeds {MAX_PART_HEAD} bytes")
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
        """Skip line ends and padding after the final boundary. Other bytes would belong to a file that contains it."""
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
    disposition = parse_content_disposition(headers.get("content-disposition", ""))
    if disposition.kind != "form-data":
        raise MalformedUpload("the form is malformed: a part lacks Content-Disposition: form-data")
    return Part(disposition, headers)


def _length(text: str | None) -> int | None:
    if text is None:
        return None
    if not _LENGTH.fullmatch(text):
        raise MalformedUpload(f"the form is malformed: a part has the Content-Length {text[:80]!r}")
    return int(text)
