"""The socket that gunicorn writes an answer to: no thread without a slot waits for a slow reader.

What the kernel does not take at once is kept where the request holds no slot, for the worker's main loop to send on
(`app.web.server.answer_drain`). Where it holds one, its thread waits, at no less than a pace
(`app.web.upload.receive_timeouts.ReaderPace`). The pace counts what the client has acknowledged, because the kernel
takes megabytes that nobody may ever read.
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
from app.web.upload.receive_timeouts import ReaderPace, ReaderTooSlow

LOOK_SECONDS = 0.25
"""How long an answer waits at most without looking at what was acknowledged. A wait within the kernel goes on only for
a reader that frees a third of the send buffer in this time, which is faster than any pace."""

_FILE_PIECE = 1 << 30
_TLS_RECORD = 16 * 1024
_COUNT = struct.Struct("i")
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class _Piece(Protocol):
    """A part of an answer that is still to be written."""

    left: int
    in_memory: bool

    def write(self, sock: socket.socket, most: int, flags: int) -> None:
        """Give the kernel what it takes, `most` bytes at most, with these flags of send(2).

        Raises BlockingIOError where it takes nothing.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class _Bytes:
    in_memory = True

    def __init__(self, data: memoryview) -> None:
        self._view = data
        self.left = len(data)

    def write(self, sock: socket.socket, most: int, flags: int) -> None:
        self._view = self._view[sock.send(self._view[:most], flags) :]
        self.left = len(self._view)

    def close(self) -> None:
        self._view = memoryview(b"")


class _FilePart:
    """A part of a file, which the kernel copies. It knows no flags: it waits where the socket does."""

    in_memory = False

    def __init__(self, fd: int, offset: int, count: int) -> None:
        self._fd = fd
        self._offset = offset
        self.left = count

    def write(self, sock: socket.socket, most: int, _flags: int) -> None:
        sent = os.sendfile(sock.fileno(), self._fd, self._offset, min(self.left, most, _FILE_PIECE))
        self._offset += sent
        self.left = self.left - sent if sent else 0  # a file that became shorter: its client sees the answer end early

    def kept_open(self) -> "_FilePart":
        """The same part through a descriptor of its own, for when the file is closed."""
        return _FilePart(os.dup(self._fd), self._offset, self.left)

    def close(self) -> None:
        os.close(self._fd)


class AnswerSocket:
    """Stands in for a client's socket while one answer is written.

    It belongs to one thread at a time: the request's, then the main loop's.
    """

    def __init__(self, sock: Any, pace: ReaderPace) -> None:
        self.holds_slot = False
        """Whether the request holds a slot, and its thread may wait for the reader."""
        self.acknowledged = 0
        """How many bytes of the answer the client had received when that was last looked at."""
        self._sock = sock
        self._pace = pace
        self._rest: deque[_Piece] = deque()
        self._written = 0
        self._is_limited = False

    @property
    def has_rest(self) -> bool:
        """Whether a part of the answer is kept for the main loop."""
        return bool(self._rest)

    @property
    def kept_bytes(self) -> int:
        """How much memory the rest takes."""
        return sum(piece.left for piece in self._rest if piece.in_memory)

    def sendall(self, data: bytes) -> None:
        """Write these bytes, or keep what the kernel does not take. Raises OSError, ReaderTooSlow among them."""
        sent = 0 if self._rest else self._send_now(data)
        if sent == len(data):  # nearly always
            return
        piece = _Bytes(memoryview(data)[sent:])
        if self.holds_slot:
            self._write_waiting(piece)
        else:
            self._rest.append(piece)

    def sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> None:
        """Have the kernel write a part of the file, or keep it open for that. Raises OSError as `sendall`."""
        left = os.fstat(file.fileno()).st_size - offset if count is None else count
        piece = _FilePart(file.fileno(), offset, left)
        if self.holds_slot:
            self._write_waiting(piece)
            return
        self._sock.setblocking(False)
        try:
            with suppress(BlockingIOError):
                while piece.left and not self._rest:
                    self._write(piece, piece.left, 0)
        finally:
            self._sock.setblocking(True)
        if piece.left:
            self._rest.append(piece.kept_open())

    def send_rest(self, most: int) -> None:
        """Write of the rest what the kernel takes now, about `most` bytes. The socket must be non-blocking. Raises
        OSError."""
        with suppress(BlockingIOError):
            while self._rest and most > 0:
                most -= self._write(self._rest[0], most, socket.MSG_DONTWAIT)
                if not self._rest[0].left:
                    self._rest.popleft().close()

    def waited(self, seconds: float) -> None:
        """Note that the answer has waited so long for its reader. Raises ReaderTooSlow where that was too long."""
        [unacknowledged] = _COUNT.unpack(fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(_COUNT.size)))
        acknowledged = max(self.acknowledged, self._written - unacknowledged)
        newly, self.acknowledged = acknowledged - self.acknowledged, acknowledged
        try:
            self._pace.waited(seconds, newly)
        except ReaderTooSlow:
            self.abort()
            raise

    def abort(self) -> None:
        """Forget the rest, and have the kernel forget what it still holds once the connection is closed."""
        self.forget_rest()
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)

    def forget_rest(self) -> None:
        """Write no more of the answer."""
        while self._rest:
            self._rest.popleft().close()

    def shutdown(self, _how: int) -> None:
        """End an answer that broke off: gunicorn would linger for 2 s in the thread for what the client still sends."""
        self.forget_rest()
        self._sock.shutdown(socket.SHUT_RDWR)

    def settimeout(self, seconds: float | None) -> None:
        """As a socket's, whose `recv` has nothing after `shutdown`."""
        self._sock.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        """As a socket's."""
        received: bytes = self._sock.recv(size)
        return received

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _write_waiting(self, piece: _Piece) -> None:
        if not self._is_limited:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(LOOK_SECONDS))
            self._is_limited = True
        while piece.left:
            began = time.monotonic()
            with suppress(BlockingIOError):
                self._write(piece, piece.left, 0)
            self.waited(time.monotonic() - began)

    def _send_now(self, data: bytes) -> int:
        """Write what the kernel takes now; how much that was."""
        try:
            sent: int = self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        self._written += sent
        return sent

    def _write(self, piece: _Piece, most: int, flags: int) -> int:
        before = piece.left
        piece.write(self._sock, most, flags)
        written = before - piece.left
        self._written += written
        return written


class TlsAnswerSocket(AnswerSocket):
    """An AnswerSocket for a connection under TLS, which only a thread can write to: it waits with a slot or without,
    within the reader's pace."""

    def sendall(self, data: bytes) -> None:
        """Write these bytes. Raises OSError, ReaderTooSlow among them."""
        view = memoryview(data)
        usual = self._sock.gettimeout()
        self._sock.settimeout(LOOK_SECONDS)
        try:
            while view:
                view = view[self._send_record(view[:_TLS_RECORD]) :]
        finally:
            self._sock.settimeout(usual)

    def _send_record(self, record: memoryview) -> int:
        began = time.monotonic()
        try:
            sent: int = self._sock.send(record)
        except TimeoutError:
            sent = 0
        self._written += sent
        self.waited(time.monotonic() - began)
        return sent


def answer_socket(sock: Any, pace: ReaderPace) -> AnswerSocket:
    """What stands in for this socket while an answer is written."""
    return TlsAnswerSocket(sock, pace) if isinstance(sock, ssl.SSLSocket) else AnswerSocket(sock, pace)


def answer_socket_of(environ: WSGIEnvironment) -> AnswerSocket | None:
    """What the answer to this request is written to; None where another server serves it."""
    found = socket_in(environ)
    return found if isinstance(found, AnswerSocket) else None
