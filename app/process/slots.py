"""Slots for long requests: they limit how many may hold a thread, so that short requests always find one.

Half of the slots are one user's share, so that one user with slow uploads does not keep others from uploading. A user
may exceed the share until only a few slots are free; these are reserved for users below their share.
"""

import threading
from collections import Counter
from collections.abc import Callable

from app.errors import Unavailable

UNSLOTTED_THREADS = 2
RESERVED_DIVISOR = 6
"""One slot in so many is reserved for other users: two of the fourteen slots of sixteen threads."""

RETRY_AFTER = 2.0


class ConcurrencyLimiter:
    """Slots for uploads, waiting answers, event streams and downloads. Thread-safe.

    Event streams last as long as a run, so they may take half of the slots; users share that half in the same way.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: Counter[str] = Counter()
        self._following: Counter[str] = Counter()
        self._guard = threading.Lock()
        self._on_change: Callable[[int], None] = lambda _taken: None

    def on_change(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the number of slots taken at each change; it must be quick and not call this object."""
        self._on_change = listener

    def set_threads(self, threads: int) -> None:
        """Set the number of slots for a server with `threads` threads."""
        self._count = max(1, threads - UNSLOTTED_THREADS)

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        with self._guard:
            return self._held.total()

    def acquire(self, user: str, *, following: bool = False) -> None:
        """Take a slot; `following` says that it is for an event stream.

        Raises Unavailable if all slots are taken, if the free ones are reserved for other users, and if no more event
        streams may be open, in all or of this user.
        """
        with self._guard:
            self._check(user, following=following)
            self._held[user] += 1
            if following:
                self._following[user] += 1
            self._on_change(self._held.total())

    def release(self, user: str, *, following: bool = False) -> None:
        """Return a slot of this user."""
        with self._guard:
            _subtract(self._held, user)
            if following:
                _subtract(self._following, user)
            self._on_change(self._held.total())

    def _check(self, user: str, *, following: bool) -> None:
        if self._held.total() >= self._count:
            raise Unavailable(f"All {self._count} slots for uploads and downloads are taken; try again.", RETRY_AFTER)
        if _is_reserved_for_others(self._held, self._count, user):
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
        if _is_reserved_for_others(self._following, streams, user):
            raise Unavailable(
                f"You hold {self._following[user]} of the {streams} event streams, which is this user's share while"
                " others may need the rest; let one end, or get the media item instead.",
                RETRY_AFTER,
            )


def _is_reserved_for_others(held: Counter[str], count: int, user: str) -> bool:
    """Whether the free slots are reserved for users below their share, half of `count`, and this user has a share."""
    reserved = max(1, count // RESERVED_DIVISOR)
    return held[user] >= -(-count // 2) and count - held.total() <= reserved


def _subtract(counter: Counter[str], user: str) -> None:
    counter[user] -= 1
    if counter[user] <= 0:
        del counter[user]
