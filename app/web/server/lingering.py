"""Connections whose request was answered before its body had come: what still comes is read for a moment.

A connection that is closed with bytes unread is reset, and a client that was still writing loses its answer with it.
The worker's main loop reads, so that no thread waits for a client.
"""

import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from selectors import EVENT_READ, BaseSelector
from typing import Any

LINGER_SECONDS = 1.0
LINGER_BYTES = 16 << 20
"""A form or a photo is read whole; who sends more has the choice to read the answer first."""

_READ_SIZE = 64 * 1024


@dataclass(eq=False, slots=True)
class _Lingering:
    sock: Any
    left: int
    until: float
    closed: Callable[[], None]


class Lingering:
    """Connections that are about to be closed, in the order of their times."""

    def __init__(
        self, poller: BaseSelector, *, seconds: float = LINGER_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._poller = poller
        self._seconds = seconds
        self._clock = clock
        self._lingering: deque[_Lingering] = deque()
        self._discarded = bytearray(_READ_SIZE)

    def __len__(self) -> int:
        return len(self._lingering)

    def add(self, sock: Any, unread: int, *, closed: Callable[[], None]) -> None:
        """Read and discard `unread` bytes, or LINGER_BYTES of them; then call `closed`, which closes."""
        one = _Lingering(sock, min(unread, LINGER_BYTES), self._clock() + self._seconds, closed)
        try:
            sock.shutdown(socket.SHUT_WR)
            sock.setblocking(False)
            self._poller.register(sock, EVENT_READ, partial(self._read, one))
        except (OSError, ValueError, KeyError):  # the client has gone
            closed()
            return
        self._lingering.append(one)

    def close_late(self) -> None:
        """Close those whose time is over."""
        now = self._clock()
        while self._lingering and self._lingering[0].until <= now:
            self._close(self._lingering[0])

    def _read(self, one: _Lingering, _sock: Any) -> None:
        try:
            received = one.sock.recv_into(self._discarded)
        except BlockingIOError:
            return
        except OSError:  # the client has gone
            received = 0
        one.left -= received
        if not received or one.left <= 0:
            self._close(one)

    def _close(self, one: _Lingering) -> None:
        self._lingering.remove(one)
        self._poller.unregister(one.sock)
        one.closed()
