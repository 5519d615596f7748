"""Receiving from a fast client in larger pieces.

Who reads as fast as a client sends is woken for every few packets, and wakes the client for every few in turn. Left
asleep until more is there, it takes a gigabyte in from the same machine a quarter faster, with a quarter less work.
But then it may wait for more than the client is allowed to send before it is answered. So a connection is read so only
once its window has had the time to open, and never again after the client has kept it waiting.
"""

import socket
from collections.abc import Callable

from app.process.timeval import TIMEVAL_BYTES, timeval

GATHERED_BYTES = 128 * 1024
"""More gains nothing; a window that has opened is some megabytes wide."""

AFTER_BYTES = 4 << 20
MOST_SECONDS = 0.1
"""How long a piece may take: a client that needs longer for it gains nothing by larger ones."""


class Gathering:
    """The reading of one body, `length` bytes, from one blocking TCP connection, whose options are as before once the
    body has been received."""

    def __init__(self, sock: socket.socket, length: int) -> None:
        self._sock = sock
        self._length = length
        self._usual: bytes | None = None
        self._may = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.gettimeout() is None

    def receive(self, receive: Callable[[int], int], size: int, left: int) -> int | None:
        """What `receive` says of a piece of `size` bytes at most, of a body of which so much is `left`; None, with
        nothing received, where that is to be done as usual. Raises OSError."""
        if not self._may or self._length - left < AFTER_BYTES or left < GATHERED_BYTES:
            return None
        if self._usual is None:
            self._usual = self._start()
        try:
            received = receive(size)
        except BlockingIOError:
            received = None
        if not received or received < GATHERED_BYTES or left - received < GATHERED_BYTES:  # there would never be enough
            self._may = False
            self._end(self._usual)
        return received

    def _start(self) -> bytes:
        usual = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL_BYTES)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(MOST_SECONDS))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, GATHERED_BYTES)
        return usual

    def _end(self, usual: bytes) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, usual)
