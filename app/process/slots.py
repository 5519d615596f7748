"""The slots of a process: how many calls may hold one of its threads for long, so that short calls always find one.

Users share the slots, or one user with slow uploads would keep everybody else from uploading. Half of the slots are one
user's share. Beyond it a user may go on, because on an otherwise idle server nobody is starved by that, until only the
last few slots are free: those are kept for users who hold less than their share.
"""

import threading
from collections import Counter
from collections.abc import Callable

from app.errors import Unavailable

KEPT_FREE = 2
ONE_IN_KEPT_FOR_OTHERS = 6
"""Of sixteen threads' fourteen slots two: another user gets in at once, and one alone is hardly limited."""

RETRY_AFTER = 2.0


class ConcurrencyLimiter:
    """Slots for uploads, waiting answers, event streams and downloads. Safe to use from several threads.

    Event streams stay for as long as a run, so they may have half of the slots and no more; users share that half in
    the same way.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: Counter[str] = Counter()
        self._following: Counter[str] = Counter()
        self._guard = threading.Lock()
        self._on_change: Callable[[int], None] = lambda _taken: None

    def on_change(self, listener: Callable[[int], None]) -> None:
        """Call `listener` at each change with the number of slots taken; it must be quick, and call nothing here."""
        self._on_change = listener

    def set_threads(self, threads: int) -> None:
        """Fit to a server that was given so many threads."""
        self._count = max(1, threads - KEPT_FREE)

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        with self._guard:
            return self._held.total()

    def acquire(self, user: str, *, following: bool = False) -> None:
        """Take a slot, `following` an event stream or for anything else.

        Raises Unavailable where every slot is taken, where the free ones are kept for other users, and where as many
        event streams are open as may be, in all or of this user.
        """
        with self._guard:
            self._check(user, following=following)
            self._held[user] += 1
            if following:
                self._following[user] += 1
            self._on_change(self._held.total())

    def release(self, user: str, *, following: bool = False) -> None:
        """Give back one slot that this user took."""
        with self._guard:
            _subtract(self._held, user)
            if following:
                _subtract(self._following, user)
            self._on_change(self._held.total())

    def _check(self, user: str, *, following: bool) -> None:
        if self._held.total() >= self._count:
            raise Unavailable(f"All {self._count} slots for uploads and downloads are taken; try again.", RETRY_AFTER)
        if _is_kept_for_others(self._held, self._count, user):
            raise Unavailable(
                f"You hold {self._held[user]} of the {self._count} slots for uploads and downloads, which is this"
                " user's share while others may need the rest; let one end, or try again.",
                RETRY_AFTER,
            )
        if following:
            self._check_streams(user)

    def _check_streams(self, user: str) -> None:
        streams = max(1, self._count // 2)
        if self._following.total() >= streams:
            raise Unavailable(
                f"{self._following.total()} event streams are open already; try again, or get the media item instead.",
                RETRY_AFTER,
            )
        if _is_kept_for_others(self._following, streams, user):
            raise Unavailable(
                f"You hold {self._following[user]} of the {streams} event streams, which is this user's share while"
                " others may need the rest; let one end, or get the media item instead.",
                RETRY_AFTER,
            )


def _is_kept_for_others(held: Counter[str], count: int, user: str) -> bool:
    """Whether this user has a share, half of `count`, and what is free is kept for those who have less."""
    kept_for_others = max(1, count // ONE_IN_KEPT_FOR_OTHERS)
    return held[user] >= -(-count // 2) and count - held.total() <= kept_for_others


def _subtract(counter: Counter[str], user: str) -> None:
    counter[user] -= 1
    if counter[user] <= 0:
        del counter[user]
