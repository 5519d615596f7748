"""Framed messages between a server process and its detector process over a socket pair.

A message is its length (4 bytes), a flag for an attached file descriptor, and its content.
"""

import math
import select
import socket
import struct

from app.process.timeval import timeval

_HEADER = struct.Struct("!I?")
_READ_BYTES = 1 << 20
_LONGEST_POLL = 2**31 - 1  # milliseconds


class Channel:
    """One end of the connection; it owns the socket. One thread may send while another receives.

    Methods raise EOFError when the other end is closed, BlockingIOError after the time set by `limit_waits`, and
    OSError otherwise.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def limit_waits(self, seconds: float) -> None:
        """Set a timeout, in seconds, for each later send and receive."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(seconds))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(seconds))

    def send(self, message: bytes, fd: int | None = None) -> None:
        """Send a message, optionally with a file descriptor. The caller still has to close its own descriptor."""
        header = _HEADER.pack(len(message), fd is not None)
        if fd is None:
            self._socket.sendall(header)
        else:
            socket.send_fds(self._socket, [header], [fd])
        self._socket.sendall(message)

    def receive(self, limit: int) -> bytes:
        """Return the next message and discard attached files.

        Raises ValueError for a message of more than `limit` bytes, before its content is read.
        """
        length, _has_file = _HEADER.unpack(self._receive_exactly(_HEADER.size))
        return self._receive_content(length, limit)

    def receive_with_file(self, limit: int) -> tuple[bytes, int | None]:
        """Return the next message and its file descriptor, which the caller has to close."""
        header, files, _flags, _address = socket.recv_fds(self._socket, _HEADER.size, 1)
        if not header:
            raise EOFError
        length, has_file = _HEADER.unpack(header + self._receive_exactly(_HEADER.size - len(header)))
        if has_file and not files:
            raise OSError(None, "the kernel did not pass the open file on")
        return self._receive_content(length, limit), files[0] if files else None

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds` and return whether there is something to receive, including the end of the stream."""
        return bool(self._poll(select.POLLIN, min(math.ceil(seconds * 1000), _LONGEST_POLL)))

    def wait_until_closed(self) -> None:
        """Return when the other end is closed. May be called beside any other method."""
        self._poll(0, None)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _poll(self, events: int, milliseconds: int | None) -> list[tuple[int, int]]:
        poller = select.poll()
        poller.register(self._socket, events)
        return poller.poll(milliseconds)

    def _receive_content(self, length: int, limit: int) -> bytes:
        if length > limit:
            raise ValueError(f"a message of {length} bytes exceeds the limit of {limit}")
        return bytes(self._receive_exactly(length))

    def _receive_exactly(self, size: int) -> bytearray:
        received = bytearray()
        while len(received) < size:
            piece = self._socket.recv(min(size - len(received), _READ_BYTES))
            if not piece:
                raise EOFError
            received += piece
        return received
