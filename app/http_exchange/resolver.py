"""Host names to addresses within a time limit.

The system's resolver cannot be interrupted, and with its name servers gone it takes half a minute to say so: far
beyond a send's deadline. So a thread does the waiting, one for each name, and callers give up on it when their time is
over.
"""

import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from app.process.shared_call import SharedCall

Addresses = Sequence[tuple[Any, ...]]
Lookup = Callable[..., Addresses]


class Resolver:
    """Looks names up; numeric addresses need no lookup. Safe to use from several threads."""

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        self._lookup = lookup
        self._guard = threading.Lock()
        self._calls: dict[tuple[str, int], SharedCall[Addresses]] = {}

    def resolve(self, host: str, port: int, seconds: float) -> Addresses:
        """As getaddrinfo for a stream; raises OSError, or TimeoutError where that takes longer than `seconds`."""
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            future = self._call(host, port).begin()
        try:
            return future.result(seconds)
        except TimeoutError as error:
            if future.done():  # the lookup itself has timed out
                raise
            raise TimeoutError(f"the name was not resolved within {seconds:.1f} s") from error

    def _call(self, host: str, port: int) -> SharedCall[Addresses]:
        lookup = partial(self._lookup, host, port, type=socket.SOCK_STREAM)
        with self._guard:
            return self._calls.setdefault((host, port), SharedCall(lookup, "resolver"))
