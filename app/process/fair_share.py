"""How users share a queue: nobody who has little waiting is refused for what others have waiting."""

from collections.abc import Mapping


def has_capacity(capacity: int, held: Mapping[str, int], user: str) -> bool:
    """Whether `user` may add one item to a queue of `capacity` items, in which each user holds what `held` says.

    Anybody may while the queue is not full. Beyond that only those may who hold less than an equal share of it, which
    is at least one item. So the queue outgrows its capacity by a small multiple at most: with n users by the n-th
    harmonic number.
    """
    if sum(held.values()) < capacity:
        return True
    users = len(held.keys() | {user})
    return held.get(user, 0) < max(1, capacity // users)
