"""A function that is run once at a time, in a thread of its own, while everybody who wants its outcome waits for it.

For what may hang and cannot be interrupted: a name server, a disk, an issuer's keys. However many ask, one thread
hangs, and each caller gives up when its own time is over. The thread is a daemon: a process that ends does not wait for
it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

Outcome = TypeVar("Outcome")


class SingleFlight(Generic[Outcome]):
    """Runs `call` in a thread called `name`. Safe to use from several threads."""

    def __init__(self, call: Callable[[], Outcome], name: str) -> None:
        self._call = call
        self._name = name
        self._guard = threading.Lock()
        self._future: Future[Outcome] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether the call has begun and not ended."""
        future = self._future
        return future is not None and not future.done()

    def begin(self) -> "Future[Outcome]":
        """Return the outcome to come of the call that is under way, or else of one that begins now."""
        with self._guard:
            if self._future is None or self._future.done():
                self._future = Future()
                threading.Thread(target=self._run, args=(self._future,), name=self._name, daemon=True).start()
            return self._future

    def wait(self, seconds: float) -> None:
        """Wait until the call that is under way has ended, if one is, or for so many seconds."""
        future = self._future
        if future is not None:
            wait([future], seconds)

    def _run(self, future: "Future[Outcome]") -> None:
        try:
            future.set_result(self._call())
        except Exception as error:  # noqa: BLE001 (raised again where the outcome is asked for)
            future.set_exception(error)
