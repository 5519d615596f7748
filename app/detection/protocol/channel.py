"""Messages between a server process and its detector process, over one pair of connected sockets.

Each is its length, whether an open file comes with it, and that many bytes.
"""

import math
import select
import socket
import struct

from app.process.timeval import timeval

_HEAD = struct.Struct("!I?")
_ONE_READ = 1 << 20
_LONGEST_POLL = 2**31 - 1  # milliseconds


class Channel:
    """One end; the socket is its own. One thread at a time may send, and one receive.

    Raises EOFError where the other end is closed, BlockingIOError where it takes or gives nothing for as long as
    `limit_waits` says, and OSError otherwise.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def limit_waits(self, seconds: float) -> None:
        """Have every later wait for the other end fail after so long."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(seconds))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(seconds))

    def send(self, message: bytes, fd: int | None = None) -> None:
        """Send a message, and with it an open file, which stays this side's to close as well."""
        head = _HEAD.pack(len(message), fd is not None)
        if fd is None:
            self._socket.sendall(head)
        else:
            socket.send_fds(self._socket, [head], [fd])
        self._socket.sendall(message)

    def receive(self, limit: int) -> bytes:
        """The next message; open files that come with it are dropped. Raises ValueError for one of more than `limit`
        bytes, of which nothing is read."""
        length, _has_file = _HEAD.unpack(self._exactly(_HEAD.size))
        return self._content(length, limit)

    def receive_with_file(self, limit: int) -> tuple[bytes, int | None]:
        """The next message, and the file that came with it, which is the caller's to close."""
        head, files, _flags, _address = socket.recv_fds(self._socket, _HEAD.size, 1)
        if not head:
            raise EOFError
        length, has_file = _HEAD.unpack(head + self._exactly(_HEAD.size - len(head)))
        if has_file and not files:
            raise OSError(None, "the open file was lost on its way")
        return self._content(length, limit), files[0] if files else None

    def wait(self, seconds: float) -> bool:
        """Whether there is something to receive, be it the end, after at most so many seconds."""
        return bool(self._poll(select.POLLIN, min(math.ceil(seconds * 1000), _LONGEST_POLL)))

    def wait_for_the_end(self) -> None:
        """Return once the other end is closed; may be called beside any other call."""
        self._poll(0, None)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _poll(self, events: int, milliseconds: int | None) -> list[tuple[int, int]]:
        poller = select.poll()
        poller.register(self._socket, events)
        return poller.poll(milliseconds)

    def _content(self, length: int, limit: int) -> bytes:
        if length > limit:
            raise ValueError(f"a message of {length} bytes")
        return bytes(self._exactly(length))

    def _exactly(self, size: int) -> bytearray:
        received = bytearray()
        while len(received) < size:
            piece = self._socket.recv(min(size - len(received), _ONE_READ))
            if not piece:
                raise EOFError
            received += piece
        return received
