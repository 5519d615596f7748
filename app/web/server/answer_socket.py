"""The socket that gunicorn writes a response to, so that no thread without a slot waits for a slow reader.

If the request holds no slot, what the kernel does not accept at once is kept for the worker's main loop
(`app.web.server.answer_drain`). If it holds one, its thread waits within the timeouts
(`app.web.upload.receive_timeouts.SendTimeouts`). These count what the client has acknowledged, because the kernel
buffers megabytes that may never be read.
"""

import fcntl
import os
import socket
import ssl
import struct
import termios
import time
from collections import deque
from contextlib import suppress
from typing import IO, Any, Protocol
from wsgiref.types import WSGIEnvironment

from app.process.timeval import timeval
from app.web.server.gunicorn_internals import socket_in
from app.web.upload.receive_timeouts import ReaderTooSlow, SendTimeouts

CHECK_SECONDS = 0.25
"""The longest wait without checking what was acknowledged.

The kernel continues a wait only for a reader that frees a third of the send buffer in this time, which is faster than
the timeouts require.
"""

_MAX_SENDFILE_BYTES = 1 << 30
_TLS_RECORD = 16 * 1024
_COUNT = struct.Struct("i")
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class _Part(Protocol):
    """A part of a response that is still to be written."""

    left: int
    in_memory: bool

    def write(self, sock: socket.socket, limit: int, flags: int) -> None:
        """Write what the kernel accepts, at limit `limit` bytes, with these flags of send(2).

        Raises BlockingIOError if it accepts nothing.
        """
        ...

    def close(self) -> None:
        """Release the part's resources."""
        ...


class _Bytes:
    in_memory = True

    def __init__(self, data: memoryview) -> None:
        self._view = data
        self.left = len(data)

    def write(self, sock: socket.socket, limit: int, flags: int) -> None:
        self._view = self._view[sock.send(self._view[:limit], flags) :]
        self.left = len(self._view)

    def close(self) -> None:
        self._view = memoryview(b"")


class _FilePart:
    """A part of a file, copied by the kernel. It has no flags: it blocks if the socket does."""

    in_memory = False

    def __init__(self, fd: int, offset: int, count: int) -> None:
        self._fd = fd
        self._offset = offset
        self.left = count

    def write(self, sock: socket.socket, limit: int, _flags: int) -> None:
        sent = os.sendfile(sock.fileno(), self._fd, self._offset, min(self.left, limit, _MAX_SENDFILE_BYTES))
        self._offset += sent
        self.left = self.left - sent if sent else 0  # a truncated file ends the response early

    def with_own_descriptor(self) -> "_FilePart":
        """Return the same part with its own descriptor, for use after the file is closed."""
        return _FilePart(os.dup(self._fd), self._offset, self.left)

    def close(self) -> None:
        os.close(self._fd)


class AnswerSocket:
    """Replaces a client's socket while one response is written.

    It belongs to one thread at a time: the request's, then the main loop's.
    """

    def __init__(self, sock: Any, timeouts: SendTimeouts) -> None:
        self.holds_slot = False
        """Whether the request holds a slot, so that its thread may wait for the reader."""
        self.acknowledged = 0
        """The number of response bytes that the client had acknowledged at the last check."""
        self._sock = sock
        self._timeouts = timeouts
        self._rest: deque[_Part] = deque()
        self._written = 0
        self._is_limited = False

    @property
    def has_rest(self) -> bool:
        """Whether a part of the response is kept for the main loop."""
        return bool(self._rest)

    @property
    def kept_bytes(self) -> int:
        """The memory that the rest takes, in bytes."""
        return sum(part.left for part in self._rest if part.in_memory)

    def sendall(self, data: bytes) -> None:
        """Write these bytes, or keep what the kernel does not accept. Raises OSError, including ReaderTooSlow."""
        sent = 0 if self._rest else self._send_now(data)
        if sent == len(data):  # the usual case
            return
        part = _Bytes(memoryview(data)[sent:])
        if self.holds_slot:
            self._write_waiting(part)
        else:
            self._rest.append(part)

    def sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> None:
        """Have the kernel write a part of the file, or keep it open for later. Raises OSError as `sendall` does."""
        left = os.fstat(file.fileno()).st_size - offset if count is None else count
        part = _FilePart(file.fileno(), offset, left)
        if self.holds_slot:
            self._write_waiting(part)
            return
        self._sock.setblocking(False)
        try:
            with suppress(BlockingIOError):
                while part.left and not self._rest:
                    self._write(part, part.left, 0)
        finally:
            self._sock.setblocking(True)
        if part.left:
            self._rest.append(part.with_own_descriptor())

    def send_rest(self, limit: int) -> None:
        """Write about `limit` bytes of the rest, as far as the kernel accepts them. The socket must be non-blocking.

        Raises OSError.
        """
        with suppress(BlockingIOError):
            while self._rest and limit > 0:
                limit -= self._write(self._rest[0], limit, socket.MSG_DONTWAIT)
                if not self._rest[0].left:
                    self._rest.popleft().close()

    def waited(self, seconds: float) -> None:
        """Count a wait for the reader. Raises ReaderTooSlow if its time is used up."""
        [unacknowledged] = _COUNT.unpack(fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(_COUNT.size)))
        acknowledged = max(self.acknowledged, self._written - unacknowledged)
        newly, self.acknowledged = acknowledged - self.acknowledged, acknowledged
        try:
            self._timeouts.waited(seconds, newly)
        except ReaderTooSlow:
            self.abort()
            raise

    def abort(self) -> None:
        """Drop the rest, and have the kernel drop its buffers when the connection is closed."""
        self.forget_rest()
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)

    def forget_rest(self) -> None:
        """Drop the rest of the response."""
        while self._rest:
            self._rest.popleft().close()

    def shutdown(self, _how: int) -> None:
        """End an aborted response, because gunicorn would linger for 2 s in the thread."""
        self.forget_rest()
        self._sock.shutdown(socket.SHUT_RDWR)

    def settimeout(self, seconds: float | None) -> None:
        """Set the socket's timeout; gunicorn calls `recv` after `shutdown`."""
        self._sock.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        """Receive from the socket."""
        received: bytes = self._sock.recv(size)
        return received

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _write_waiting(self, part: _Part) -> None:
        if not self._is_limited:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(CHECK_SECONDS))
            self._is_limited = True
        while part.left:
            began = time.monotonic()
            with suppress(BlockingIOError):
                self._write(part, part.left, 0)
            self.waited(time.monotonic() - began)

    def _send_now(self, data: bytes) -> int:
        """Write what the kernel accepts now, and return how much."""
        try:
            sent: int = self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        self._written += sent
        return sent

    def _write(self, part: _Part, limit: int, flags: int) -> int:
        before = part.left
        part.write(self._sock, limit, flags)
        written = before - part.left
        self._written += written
        return written


class TlsAnswerSocket(AnswerSocket):
    """An AnswerSocket for a TLS connection, which only a thread can write to: it waits with or without a slot."""

    def sendall(self, data: bytes) -> None:
        """Write these bytes. Raises OSError, including ReaderTooSlow."""
        view = memoryview(data)
        original = self._sock.gettimeout()
        self._sock.settimeout(CHECK_SECONDS)
        try:
            while view:
                view = view[self._send_record(view[:_TLS_RECORD]) :]
        finally:
            self._sock.settimeout(original)

    def _send_record(self, record: memoryview) -> int:
        began = time.monotonic()
        try:
            sent: int = self._sock.send(record)
        except TimeoutError:
            sent = 0
        self._written += sent
        self.waited(time.monotonic() - began)
        return sent


def answer_socket(sock: Any, timeouts: SendTimeouts) -> AnswerSocket:
    """Return the replacement of this socket for one response."""
    return TlsAnswerSocket(sock, timeouts) if isinstance(sock, ssl.SSLSocket) else AnswerSocket(sock, timeouts)


def answer_socket_of(environ: WSGIEnvironment) -> AnswerSocket | None:
    """Return the socket that the response is written to; None under other servers."""
    found = socket_in(environ)
    return found if isinstance(found, AnswerSocket) else None
