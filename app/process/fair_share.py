"""Shares a queue fairly: a user with few items in it is not refused because of others' items."""

from collections.abc import Mapping


def has_capacity(capacity: int, held: Mapping[str, int], user: str) -> bool:
    """Whether `user` may add an item to a queue of `capacity` items, in which users have `held` items.

    Every user may while the queue is not full. A full queue takes items of users with less than an equal share, which
    is at least one item. With n users the queue grows to at most the n-th harmonic number times its capacity.
    """
    if sum(held.values()) < capacity:
        return True
    users = len(held.keys() | {user})
    return held.get(user, 0) < max(1, capacity // users)
