"""Connections that were answered before their body had arrived: the rest of the body is read for a moment.

Closing a connection with unread bytes resets it, and a client that is still writing would lose its response. The
worker's main loop reads, so that no thread waits for a client.
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
"""A form or a photo is read completely; larger uploads should read the response first."""

_READ_SIZE = 64 * 1024


@dataclass(eq=False, slots=True)
class _Lingering:
    sock: Any
    left: int
    until: float
    closed: Callable[[], None]


class Lingering:
    """Connections about to be closed, in order of their deadlines."""

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
        """Read and discard `unread` bytes, at most LINGER_BYTES; then call `closed`, which closes the connection."""
        lingering = _Lingering(sock, min(unread, LINGER_BYTES), self._clock() + self._seconds, closed)
        try:
            sock.shutdown(socket.SHUT_WR)
            sock.setblocking(False)
            self._poller.register(sock, EVENT_READ, partial(self._read, lingering))
        except (OSError, ValueError, KeyError):  # the client has gone
            closed()
            return
        self._lingering.append(lingering)

    def close_late(self) -> None:
        """Close connections whose time is over."""
        now = self._clock()
        while self._lingering and self._lingering[0].until <= now:
            self._close(self._lingering[0])

    def _read(self, lingering: _Lingering, _sock: Any) -> None:
        try:
            received = lingering.sock.recv_into(self._discarded)
        except BlockingIOError:
            return
        except OSError:  # the client has gone
            received = 0
        lingering.left -= received
        if not received or lingering.left <= 0:
            self._close(lingering)

    def _close(self, lingering: _Lingering) -> None:
        self._lingering.remove(lingering)
        self._poller.unregister(lingering.sock)
        lingering.closed()
