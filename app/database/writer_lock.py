"""Whose turn it is to write to SQLite among the threads of one process, and how long the turn may wait for others."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Unavailable

RETRY_AFTER_SECONDS = 5.0


class WriterLock:
    """One thread at a time. Waiting for the turn and for the database's lock have one deadline together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadline = 0.0

    def seconds_left(self) -> float:
        """How many seconds the thread whose turn it is may still wait for the database's lock."""
        return max(0.0, self._deadline - time.monotonic())

    @contextmanager
    def acquired(self, seconds: float, since: float | None = None) -> Iterator[None]:
        """Have the turn within the block; raises Unavailable where it does not come in time.

        `since` is when the waiting began, on the monotonic clock, where that was before now.
        """
        deadline = (time.monotonic() if since is None else since) + seconds
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Unavailable(f"The database has been busy for {seconds:g} seconds; try again.", RETRY_AFTER_SECONDS)
        try:
            self._deadline = deadline
            yield
        finally:
            self._lock.release()
