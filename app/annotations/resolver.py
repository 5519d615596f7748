"""Host names to addresses within a time limit.

The system's resolver cannot be interrupted, and with its name servers gone it takes half a minute to say so: far
beyond a send's deadline. So one thread does the waiting, and callers give up on it when their time is over. It is a
daemon, because a process that ends must not wait for a name server either.
"""

import queue
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

Addresses = Sequence[tuple[Any, ...]]
Lookup = Callable[..., Addresses]
Questions = queue.SimpleQueue[tuple[str, int, Future[Addresses]] | None]


class Resolver:
    """Looks names up one at a time, in a thread that is started by the first name; numeric addresses need none."""

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        self._lookup = lookup
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asked: Questions = queue.SimpleQueue()

    def resolve(self, host: str, port: int, seconds: float) -> Addresses:
        """As getaddrinfo for a stream; raises OSError, or TimeoutError where that takes longer than `seconds`."""
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found: Future[Addresses] = Future()
            self._ask(host, port, found)
        try:
            return found.result(seconds)
        except TimeoutError as error:
            found.cancel()
            raise TimeoutError(f"the name was not resolved within {seconds:.1f} s") from error

    def close(self) -> None:
        """Let the thread end, after what it has begun; a later `resolve` starts another."""
        with self._lock:
            self._asked.put(None)
            self._asked, self._thread = queue.SimpleQueue(), None

    def _ask(self, host: str, port: int, found: "Future[Addresses]") -> None:
        with self._lock:
            self._asked.put((host, port, found))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, args=[self._asked], name="annotations-resolver", daemon=True
                )
                self._thread.start()

    def _run(self, asked: Questions) -> None:
        while question := asked.get():
            host, port, found = question
            if not found.set_running_or_notify_cancel():
                continue
            try:
                found.set_result(self._lookup(host, port, type=socket.SOCK_STREAM))
            except OSError as error:
                found.set_exception(error)
