"""The request body, read as directly from the client's connection as the server allows.

gunicorn's own reader copies its buffers again and again, calls a body that was cut off complete, and waits for a
silent client without end. So a body of known length on a plain connection is received straight from the socket,
after what gunicorn has already buffered; everything else (TLS, chunked, HTTP/2, other servers) goes through
`wsgi.input`, counted and paced all the same.

The promise: never more is taken than the body has, what a client pipelined behind it stays for the next request,
and until the last byte of the body is off the connection the body counts as failed, so that whatever breaks in
between, body bytes are never parsed as a request.
"""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol
from wsgiref.types import WSGIEnvironment

from app.errors import MalformedUpload
from app.web.server.gunicorn_internals import FramedBody, ParseException, PlainBody, received_body
from app.web.upload.receive_batching import Gathering
from app.web.upload.receive_timeouts import Pace, receive_paced

READ_SIZE = 512 * 1024
"""Most bytes taken at once: smaller reads cost more calls than a processor's cache saves, larger ones gain nothing."""

MOST_FRAMED = 8
"""Most bytes of a framed body for each of its content: a chunk of one byte has six."""


class BodySource(Protocol):
    """The bytes of one request body, in order.

    Raises MalformedUpload when the body is cut off or badly framed, UploadTimedOut when the client is too slow.
    """

    def read(self) -> memoryview:
        """The next bytes, at most READ_SIZE, which may be overwritten by the next call; none once the whole body has
        been read."""
        ...


def content_length(environ: WSGIEnvironment) -> int | None:
    """Bytes in the body, None where it comes in chunks. Raises MalformedUpload when the header is not a number."""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return None
    text = environ.get("CONTENT_LENGTH") or ("" if environ.get("wsgi.input_terminated") else "0")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise MalformedUpload("Content-Length is not a number")
    return int(text)


def open_source(environ: WSGIEnvironment, pace: Pace) -> BodySource:
    """The fastest source for this request's body. Nothing is read from the client, nor is it invited, before the
    source is read."""
    length = content_length(environ)
    body = received_body(environ["wsgi.input"])
    if isinstance(body, PlainBody):
        return _SocketSource(body, pace)
    if isinstance(body, FramedBody):
        return _FramedSource(environ["wsgi.input"], length, pace, body)
    return _InputSource(environ["wsgi.input"], length, pace)


class _SocketSource:
    """A body of known length, received straight from gunicorn's plain socket."""

    def __init__(self, body: PlainBody, pace: Pace) -> None:
        self._body = body
        self._pace = pace
        self._gathering = Gathering(body.sock, body.left)
        self._buffer = memoryview(b"")
        self._started = False

    def read(self) -> memoryview:
        held = self._start()
        left = self._body.left
        if held or not left:
            return memoryview(held)
        if not self._buffer:
            self._buffer = memoryview(bytearray(min(READ_SIZE, left)))
        count = self._receive(min(READ_SIZE, left), left)
        self._pace.count(count)
        self._body.take(count)
        return self._buffer[:count]

    def _start(self) -> bytes:
        """At the first read, what gunicorn has of this body already."""
        if self._started:
            return b""
        self._started = True
        early, held = _started(self._body)
        self._pace.count(len(held))
        return early + held

    def _receive(self, size: int, left: int) -> int:
        try:
            received = self._gathering.receive(self._receive_into_buffer, size, left)
            if received is None:
                received = receive_paced(self._body.sock, self._pace, lambda: self._receive_into_buffer(size))
        except OSError as error:
            raise _cut_off(error) from error
        if not received:
            raise _cut_off()
        return received

    def _receive_into_buffer(self, size: int) -> int:
        return self._body.sock.recv_into(self._buffer, size)


class _InputSource:
    """A body through `wsgi.input`. Its length is counted: servers end a body that was cut off like a whole one."""

    def __init__(self, stream: Any, length: int | None, pace: Pace) -> None:
        self._stream = stream
        self._left = length
        self._pace = pace

    def read(self) -> memoryview:
        return memoryview(self._read())

    def _read(self) -> bytes:
        wanted = READ_SIZE if self._left is None else min(READ_SIZE, self._left)
        if not wanted:
            return b""
        self._pace.next_wait()
        data = self._read_stream(wanted)
        self._count(len(data))
        if self._left is not None:
            if not data:
                raise _cut_off()
            self._left -= len(data)
        return data

    def _count(self, received: int) -> None:
        self._pace.count(received)

    def _read_stream(self, wanted: int) -> bytes:
        try:
            return bytes(self._stream.read(wanted))
        except OSError as error:
            raise _cut_off(error) from error


class _FramedSource(_InputSource):
    """A body through gunicorn's reader: chunked, or under TLS. The socket is paced beneath the reader, which would
    otherwise wait for a whole READ_SIZE, or for the end of a chunk's size line, however slowly that comes."""

    def __init__(self, stream: Any, length: int | None, pace: Pace, body: FramedBody) -> None:
        super().__init__(stream, length, pace)
        self._body = body
        self._content = 0
        self._framed = 0

    def _count(self, received: int) -> None:
        self._content += received

    def arrived(self, count: int) -> None:
        """So many bytes more of the framed body: they count as they come, since a reader that waits for a whole piece
        would make a slow client look like one that sends nothing. But frames around nothing buy no time for ever."""
        self._framed += count
        if self._framed > MOST_FRAMED * (self._content + READ_SIZE):
            raise MalformedUpload("the chunks of the body hold hardly anything")
        self._pace.count(count)

    def _read(self) -> bytes:
        _started(self._body)
        data = super()._read()
        if self._left == 0 or not data:
            self._body.complete()
        return data

    def _read_stream(self, wanted: int) -> bytes:
        try:
            with self._body.received_through(partial(_PacedSocket, pace=self._pace, arrived=self.arrived)):
                return super()._read_stream(wanted)
        except ParseException as error:
            raise MalformedUpload(f"the chunks of the body are malformed: {error}") from error


class _PacedSocket:
    """A socket for gunicorn's reader to receive from, at no less than a given pace."""

    def __init__(self, sock: socket.socket, pace: Pace, arrived: Callable[[int], None]) -> None:
        self._sock = sock
        self._pace = pace
        self._arrived = arrived

    def recv(self, size: int) -> bytes:
        received = receive_paced(self._sock, self._pace, lambda: self._sock.recv(min(size, READ_SIZE)))
        self._arrived(len(received))
        return received


def _started(body: PlainBody | FramedBody) -> tuple[bytes, bytes]:
    try:
        return body.start()
    except OSError as error:
        raise _cut_off(error) from error


def _cut_off(error: OSError | None = None) -> MalformedUpload:
    reason = getattr(error, "strerror", None)
    return MalformedUpload(f"the body was cut off: {reason}" if reason else "the body was cut off")
