"""Limits of resumable uploads: size, number and timeouts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`max_bytes` per file, unfinished uploads `per_user`, and timeouts in seconds.

    `takeover` is how long a request waits for another one to release an upload; `checkpoint` is the time between syncs
    while a part arrives.
    """

    max_bytes: int
    per_user: int
    takeover: float = 4.0
    checkpoint: float = 5.0
