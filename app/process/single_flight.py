"""Runs a function in one thread at a time and shares its result among all callers (as Go's singleflight).

It is meant for calls that may hang and cannot be interrupted: to a name server, a disk, an issuer. However many callers
there are, one thread hangs, and each caller stops waiting at its own deadline. The thread is a daemon, so it does not
keep a process from ending.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

Result = TypeVar("Result")


class SingleFlight(Generic[Result]):
    """Runs `call` in a thread named `name`. Thread-safe."""

    def __init__(self, call: Callable[[], Result], name: str) -> None:
        self._call = call
        self._name = name
        self._guard = threading.Lock()
        self._future: Future[Result] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a call is running."""
        future = self._future
        return future is not None and not future.done()

    def begin(self) -> "Future[Result]":
        """Return the future of the running call, or of a new one."""
        with self._guard:
            if self._future is None or self._future.done():
                self._future = Future()
                threading.Thread(target=self._run, args=(self._future,), name=self._name, daemon=True).start()
            return self._future

    def wait(self, seconds: float) -> None:
        """Wait until the running call has ended, at most `seconds`."""
        future = self._future
        if future is not None:
            wait([future], seconds)

    def _run(self, future: "Future[Result]") -> None:
        try:
            future.set_result(self._call())
        except Exception as error:  # noqa: BLE001 (raised again by the future's result)
            future.set_exception(error)
