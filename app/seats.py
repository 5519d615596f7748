"""The seats of a process: how many calls may hold one of its threads for long, so that short calls always find one.

They are shared out, or one user with slow uploads would keep everybody else from uploading. Half of the seats are
anybody's share. Beyond it a user may go on, because on an otherwise idle server nobody is starved by that, until only
the last few seats are free: those are kept for users who hold less than their share.
"""

import threading
from collections import Counter
from collections.abc import Callable

from app.errors import Unavailable

KEPT_FREE = 2
ONE_IN_KEPT_FOR_OTHERS = 6
"""Of sixteen threads' fourteen seats two: another user gets in at once, and one alone is hardly limited."""

RETRY_AFTER = 2.0


class Seats:
    """Taken by uploads, waiting answers, event streams and downloads. Safe to use from several threads.

    Event streams stay for as long as a run, so they may have half of the seats and no more.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: Counter[str] = Counter()
        self._following = 0
        self._guard = threading.Lock()
        self._on_change: Callable[[int], None] = lambda _taken: None

    def on_change(self, listener: Callable[[int], None]) -> None:
        """Tell `listener` at each change how many are taken; it must be quick, and ask for nothing here."""
        self._on_change = listener

    def set_threads(self, threads: int) -> None:
        """Fit to a server that was given so many threads."""
        self._count = max(1, threads - KEPT_FREE)

    @property
    def taken(self) -> int:
        with self._guard:
            return self._held.total()

    def take(self, user: str, *, following: bool = False) -> None:
        """Sit down, `following` an event stream or for anything else.

        Raises Unavailable where every seat is taken, where the free ones are kept for other users, and where as many
        event streams are open as may be.
        """
        with self._guard:
            self._judge(user, following=following)
            self._held[user] += 1
            self._following += following
            self._on_change(self._held.total())

    def release(self, user: str, *, following: bool = False) -> None:
        """Give back one seat that this user took."""
        with self._guard:
            self._held[user] -= 1
            if self._held[user] <= 0:
                del self._held[user]
            self._following -= following
            self._on_change(self._held.total())

    def _judge(self, user: str, *, following: bool) -> None:
        free, held = self._count - self._held.total(), self._held[user]
        if free <= 0:
            raise Unavailable(f"All {self._count} seats for uploads and downloads are taken; try again.", RETRY_AFTER)
        if held >= self._share and free <= self._kept_for_others:
            raise Unavailable(
                f"You hold {held} of the {self._count} seats for uploads and downloads, which is this user's share"
                " while others may need the rest; let one end, or try again.",
                RETRY_AFTER,
            )
        if following and self._following >= self._most_following:
            raise Unavailable(
                f"{self._following} event streams are open already; try again, or look at the media instead.",
                RETRY_AFTER,
            )

    @property
    def _share(self) -> int:
        return -(-self._count // 2)

    @property
    def _kept_for_others(self) -> int:
        return max(1, self._count // ONE_IN_KEPT_FOR_OTHERS)

    @property
    def _most_following(self) -> int:
        return max(1, self._count // 2)
