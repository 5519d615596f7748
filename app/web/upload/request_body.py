"""The request body, read as directly from the client's connection as the server allows.

gunicorn's own reader copies its buffers again and again, calls a body that was cut off complete, and waits for a
silent client without end. So a body of known length on a plain connection is received straight from the socket,
after what gunicorn has already buffered; everything else (TLS, chunked, HTTP/2, other servers) goes through
`wsgi.input`, counted and paced all the same.

The promise: never more is taken than the body has, what a client pipelined behind it stays for the next request,
and until the last byte of the body is off the connection the body counts as failed, so that whatever breaks in
between, body bytes are never parsed as a request.
"""

import io
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol
from wsgiref.types import WSGIEnvironment

from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ParseException

from app.errors import MalformedUpload
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


class HeldContinue:
    """Stands in for the reader of a body whose client waits for `100 Continue`, and sends that at the first read.

    gunicorn would send it before the application has seen the token, and so invite a body that is then refused.
    """

    def __init__(self, body: Any, sock: socket.socket) -> None:
        self.reader = body.reader
        self._body = body
        self._sock = sock

    def release(self) -> None:
        """Invite the body, and step aside."""
        self._body.reader = self.reader
        self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def read(self, size: int) -> Any:
        self.release()
        return self.reader.read(size)


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
    body, length = environ["wsgi.input"], content_length(environ)
    if not isinstance(body, Body):
        return _InputSource(body, length, pace)
    reader = body.reader.reader if isinstance(body.reader, HeldContinue) else body.reader
    if isinstance(reader, ChunkedReader):
        return _GunicornSource(body, length, pace, reader.req.unreader)
    sock = reader.unreader.sock  # the one of the environment is for answers
    if isinstance(sock, ssl.SSLSocket) or not isinstance(reader, LengthReader):
        return _GunicornSource(body, length, pace, reader.unreader)
    return _SocketSource(body, reader, sock, pace)


def is_off_the_connection(body: Any) -> bool:
    """Whether nothing of a gunicorn body is left on its connection, so that the next request can be read from it."""
    reader = body.reader
    if isinstance(reader, LengthReader):
        return reader.length == 0 and not body.failed
    return isinstance(reader, ChunkedReader) and reader.parser is None and not body.failed


def unread_bytes(body: Any) -> int | None:
    """How much of a gunicorn body is still to be received; None where that cannot be known."""
    reader = body.reader.reader if isinstance(body.reader, HeldContinue) else body.reader
    if not isinstance(reader, LengthReader):
        return None
    return max(0, int(reader.length) - len(reader.unreader.buf.getvalue()))


class _SocketSource:
    """A body of known length, received straight from gunicorn's plain socket."""

    def __init__(self, body: Any, reader: Any, sock: socket.socket, pace: Pace) -> None:
        self._body = body
        self._reader = reader
        self._sock = sock
        self._pace = pace
        self._gathering = Gathering(sock, reader.length)
        self._buffer = memoryview(b"")
        self._started = False

    def read(self) -> memoryview:
        held = self._start()
        if held or not self._reader.length:
            return memoryview(held)
        if not self._buffer:
            self._buffer = memoryview(bytearray(min(READ_SIZE, self._reader.length)))
        count = self._receive(min(READ_SIZE, self._reader.length))
        self._took(count)
        return self._buffer[:count]

    def _start(self) -> bytes:
        """At the first read, what gunicorn has read of this body already; what it read beyond is given back."""
        if self._started:
            return b""
        self._started = True
        self._body.failed = True
        _invite(self._body)
        early, self._body.buf = self._body.buf.getvalue(), io.BytesIO()
        buffered = self._reader.unreader.take_buffered()
        held = buffered[: self._reader.length]
        self._reader.unreader.unread(buffered[len(held) :])
        self._took(len(held))
        return bytes(early + held)

    def _receive(self, size: int) -> int:
        try:
            received = self._gathering.receive(self._receive_into_buffer, size, self._reader.length)
            if received is None:
                received = receive_paced(self._sock, self._pace, lambda: self._receive_into_buffer(size))
        except OSError as error:
            raise _cut_off(error) from error
        if not received:
            raise _cut_off()
        return received

    def _receive_into_buffer(self, size: int) -> int:
        return self._sock.recv_into(self._buffer, size)

    def _took(self, count: int) -> None:
        self._pace.count(count)
        self._reader.length -= count
        if not self._reader.length:
            self._body.failed = False


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


class _GunicornSource(_InputSource):
    """A body through gunicorn's reader: chunked, or under TLS. The socket is paced beneath the reader, which would
    otherwise wait for a whole READ_SIZE, or for the end of a chunk's size line, however slowly that comes."""

    def __init__(self, body: Any, length: int | None, pace: Pace, unreader: Any) -> None:
        super().__init__(body, length, pace)
        self._unreader = unreader
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
        self._stream.failed = True
        _invite(self._stream)
        data = super()._read()
        if self._left == 0 or not data:
            self._stream.failed = False
        return data

    def _read_stream(self, wanted: int) -> bytes:
        sock = self._unreader.sock
        self._unreader.sock = _PacedSocket(sock, self._pace, self.arrived)
        try:
            return super()._read_stream(wanted)
        except ParseException as error:
            raise MalformedUpload(f"the chunks of the body are malformed: {error}") from error
        finally:
            self._unreader.sock = sock


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


def _invite(body: Any) -> None:
    if isinstance(body.reader, HeldContinue):
        try:
            body.reader.release()
        except OSError as error:
            raise _cut_off(error) from error


def _cut_off(error: OSError | None = None) -> MalformedUpload:
    reason = getattr(error, "strerror", None)
    return MalformedUpload(f"the body was cut off: {reason}" if reason else "the body was cut off")
