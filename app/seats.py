"""The seats of a process: how many calls may hold one of its threads for long, so that short calls always find one."""

import threading

from app.errors import Unavailable

KEPT_FREE = 2


class Seats:
    """Taken by uploads, waiting answers, event streams and downloads. Safe to use from several threads."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0
        self._guard = threading.Lock()

    def set_threads(self, threads: int) -> None:
        """Fit to a server that was given so many threads."""
        self._count = max(1, threads - KEPT_FREE)

    @property
    def taken(self) -> int:
        return self._taken

    def take(self) -> None:
        """Sit down; raises Unavailable where every seat is taken."""
        with self._guard:
            if self._taken >= self._count:
                raise Unavailable(f"All {self._count} seats for uploads and downloads are taken; try again.", 2)
            self._taken += 1

    def release(self) -> None:
        with self._guard:
            self._taken -= 1
