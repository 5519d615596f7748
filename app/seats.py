"""The seats of a process: how many calls may hold one of its threads for long, so that short calls always find one.

They are shared out, or one user with slow uploads would keep everybody else from uploading. Half of the seats are
anybody's share. Beyond it a user may go on, because on an otherwise idle server nobody is starved by that, until only
the last few seats are free: those are kept for users who hold less than their share.
"""

import threading
from collections import Counter

from app.errors import Unavailable

KEPT_FREE = 2
ONE_IN_KEPT_FOR_OTHERS = 6
"""Of sixteen threads' fourteen seats two: another user gets in at once, and one alone is hardly limited."""

RETRY_AFTER = 2.0


class Seats:
    """Taken by uploads, waiting answers, event streams and downloads. Safe to use from several threads."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: Counter[str] = Counter()
        self._guard = threading.Lock()

    def set_threads(self, threads: int) -> None:
        """Fit to a server that was given so many threads."""
        self._count = max(1, threads - KEPT_FREE)

    @property
    def taken(self) -> int:
        with self._guard:
            return self._held.total()

    def take(self, user: str) -> None:
        """Sit down; raises Unavailable where every seat is taken, or where the free ones are kept for other users."""
        with self._guard:
            free, held = self._count - self._held.total(), self._held[user]
            if free <= 0:
                raise Unavailable(
                    f"All {self._count} seats for uploads and downloads are taken; try again.", RETRY_AFTER
                )
            if held >= self._share and free <= self._kept_for_others:
                raise Unavailable(
                    f"You hold {held} of the {self._count} seats for uploads and downloads, which is this user's share"
                    " while others may need the rest; let one end, or try again.",
                    RETRY_AFTER,
                )
            self._held[user] = held + 1

    def release(self, user: str) -> None:
        """Give back one seat that this user took."""
        with self._guard:
            self._held[user] -= 1
            if self._held[user] <= 0:
                del self._held[user]

    @property
    def _share(self) -> int:
        return -(-self._count // 2)

    @property
    def _kept_for_others(self) -> int:
        return max(1, self._count // ONE_IN_KEPT_FOR_OTHERS)
