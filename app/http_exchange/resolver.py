"""Resolves host names within a time limit.

The system's resolver cannot be interrupted, and without its name servers it takes half a minute to fail. So one thread
for each name waits for it, and callers stop waiting at their own deadlines.
"""

import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from app.process.single_flight import SingleFlight

Addresses = Sequence[tuple[Any, ...]]
Lookup = Callable[..., Addresses]


class Resolver:
    """Resolves host names; numeric addresses are parsed directly. Thread-safe."""

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        self._lookup = lookup
        self._guard = threading.Lock()
        self._calls: dict[tuple[str, int], SingleFlight[Addresses]] = {}

    def resolve(self, host: str, port: int, seconds: float) -> Addresses:
        """Return what getaddrinfo does for a stream. Raises OSError, or TimeoutError after `seconds`."""
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

    def _call(self, host: str, port: int) -> SingleFlight[Addresses]:
        lookup = partial(self._lookup, host, port, type=socket.SOCK_STREAM)
        with self._guard:
            return self._calls.setdefault((host, port), SingleFlight(lookup, "resolver"))
