"""Reads the request body as directly from the client's connection as the server allows.

gunicorn's own reader copies its buffers repeatedly, treats a truncated body as complete, and waits for a silent client
without limit. A body of known length on a plain connection is therefore received from the socket, after what gunicorn
has buffered; everything else (TLS, chunked, other servers) goes through `wsgi.input`, counted and with the same
timeouts.

Never more is taken than the body has; what a client pipelines after it is left for the next request. Until its last
byte is received the body counts as failed, so that body bytes are never parsed as a request after an error.
"""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol
from wsgiref.types import WSGIEnvironment

from app.errors import MalformedUpload
from app.web.server.gunicorn_internals import FramedBody, ParseException, PlainBody, received_body
from app.web.upload.receive_batching import ReceiveBatching
from app.web.upload.receive_timeouts import ReceiveTimeouts, receive_with_timeouts

READ_SIZE = 512 * 1024
"""The most bytes per read: smaller reads cost more calls than a processor's cache saves, larger ones gain nothing."""

MAX_FRAMING_RATIO = 8
"""The most framed bytes per byte of content; a chunk of one byte has six."""


class BodySource(Protocol):
    """The bytes of one request body, in order.

    Raises MalformedUpload if the body is truncated or badly framed, and UploadTimedOut if the client is too slow.
    """

    def read(self) -> memoryview:
        """Return the next bytes, at most READ_SIZE, empty at the end. The next call may overwrite them."""
        ...


def content_length(environ: WSGIEnvironment) -> int | None:
    """Return the body's length, None for a chunked body. Raises MalformedUpload if the header is not a number."""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return None
    text = environ.get("CONTENT_LENGTH") or ("" if environ.get("wsgi.input_terminated") else "0")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise MalformedUpload("Content-Length is not a number")
    return int(text)


def open_source(environ: WSGIEnvironment, timeouts: ReceiveTimeouts) -> BodySource:
    """Return the fastest source for the request's body. Nothing is read or invited before the source is read."""
    length = content_length(environ)
    body = received_body(environ["wsgi.input"])
    if isinstance(body, PlainBody):
        return _SocketSource(body, timeouts)
    if isinstance(body, FramedBody):
        return _FramedSource(environ["wsgi.input"], length, timeouts, body)
    return _InputSource(environ["wsgi.input"], length, timeouts)


class _SocketSource:
    """A body of known length, received from gunicorn's plain socket."""

    def __init__(self, body: PlainBody, timeouts: ReceiveTimeouts) -> None:
        self._body = body
        self._timeouts = timeouts
        self._batching = ReceiveBatching(body.sock, body.left)
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
        self._timeouts.count(count)
        self._body.take(count)
        return self._buffer[:count]

    def _start(self) -> bytes:
        """Return, at the first read, what gunicorn has buffered of this body."""
        if self._started:
            return b""
        self._started = True
        early, held = _started(self._body)
        self._timeouts.count(len(held))
        return early + held

    def _receive(self, size: int, left: int) -> int:
        try:
            received = self._batching.receive(self._receive_into_buffer, size, left)
            if received is None:
                received = receive_with_timeouts(
                    self._body.sock, self._timeouts, lambda: self._receive_into_buffer(size)
                )
        except OSError as error:
            raise _cut_off(error) from error
        if not received:
            raise _cut_off()
        return received

    def _receive_into_buffer(self, size: int) -> int:
        return self._body.sock.recv_into(self._buffer, size)


class _InputSource:
    """A body through `wsgi.input`. Its length is counted, because servers end a truncated body like a complete one."""

    def __init__(self, stream: Any, length: int | None, timeouts: ReceiveTimeouts) -> None:
        self._stream = stream
        self._left = length
        self._timeouts = timeouts

    def read(self) -> memoryview:
        return memoryview(self._read())

    def _read(self) -> bytes:
        size = READ_SIZE if self._left is None else min(READ_SIZE, self._left)
        if not size:
            return b""
        self._timeouts.next_timeout()
        data = self._read_stream(size)
        self._count(len(data))
        if self._left is not None:
            if not data:
                raise _cut_off()
            self._left -= len(data)
        return data

    def _count(self, received: int) -> None:
        self._timeouts.count(received)

    def _read_stream(self, size: int) -> bytes:
        try:
            return bytes(self._stream.read(size))
        except OSError as error:
            raise _cut_off(error) from error


class _FramedSource(_InputSource):
    """A body through gunicorn's reader: chunked, or under TLS.

    The timeouts apply to the socket beneath the reader, which would otherwise wait for a whole READ_SIZE, or for the
    end of a chunk's size line.
    """

    def __init__(self, stream: Any, length: int | None, timeouts: ReceiveTimeouts, body: FramedBody) -> None:
        super().__init__(stream, length, timeouts)
        self._body = body
        self._content = 0
        self._framed = 0

    def _count(self, received: int) -> None:
        self._content += received

    def arrived(self, count: int) -> None:
        """Count received framed bytes as they arrive.

        The reader waits for a whole chunk, during which a slow client would otherwise look stalled. Frames without
        content earn no time.
        """
        self._framed += count
        if self._framed > MAX_FRAMING_RATIO * (self._content + READ_SIZE):
            raise MalformedUpload("the chunks of the body contain almost no data")
        self._timeouts.count(count)

    def _read(self) -> bytes:
        _started(self._body)
        data = super()._read()
        if self._left == 0 or not data:
            self._body.complete()
        return data

    def _read_stream(self, size: int) -> bytes:
        try:
            with self._body.received_through(partial(_TimedSocket, timeouts=self._timeouts, arrived=self.arrived)):
                return super()._read_stream(size)
        except ParseException as error:
            raise MalformedUpload(f"the chunks of the body are malformed: {error}") from error


class _TimedSocket:
    """A socket for gunicorn's reader that applies the timeouts."""

    def __init__(self, sock: socket.socket, timeouts: ReceiveTimeouts, arrived: Callable[[int], None]) -> None:
        self._sock = sock
        self._timeouts = timeouts
        self._arrived = arrived

    def recv(self, size: int) -> bytes:
        received = receive_with_timeouts(self._sock, self._timeouts, lambda: self._sock.recv(min(size, READ_SIZE)))
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
