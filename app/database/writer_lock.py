"""The lock of SQLite's writers within one process, with a deadline that includes the wait for the database's lock."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Unavailable

RETRY_AFTER_SECONDS = 5.0


class WriterLock:
    """Lets one thread write at a time. Waits for this lock and for the database's lock share one deadline."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadline = 0.0

    def seconds_left(self) -> float:
        """Return how many seconds the holder may still wait for the database's lock."""
        return max(0.0, self._deadline - time.monotonic())

    @contextmanager
    def acquired(self, seconds: float, since: float | None = None) -> Iterator[None]:
        """Hold the lock within the block; raise Unavailable if it is not free within `seconds`.

        `since` is when the wait began, on the monotonic clock, if that was earlier.
        """
        deadline = (time.monotonic() if since is None else since) + seconds
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Unavailable(f"The database has been busy for {seconds:g} seconds; try again.", RETRY_AFTER_SECONDS)
        try:
            self._deadline = deadline
            yield
        finally:
            self._lock.release()
