"""Caches verified tokens, so that a client's token is not decoded again for each request.

Decoding a token costs more than the rest of Flask's work for an upload. An entry lives at most a minute and not beyond
the token's expiry, so that a withdrawn key soon stops working. Only hashes of tokens are stored.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

MAX_AGE_SECONDS = 60.0
MAX_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token's user, and whether the token is an administrator's."""

    user_id: str
    is_admin: bool


class TokenCache:
    """Bearers by their Authorization header. Thread-safe. `clock` returns seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[bytes, tuple[Bearer, float, float]] = {}

    def get(self, authorization: str) -> Bearer | None:
        """Return the cached bearer of that header, or None if the token must be verified."""
        entry = self._entries.get(_digest(authorization))
        if entry is None:
            return None
        bearer, since, until = entry
        # The lower bound keeps entries from living longer when the clock is set back.
        return bearer if since <= self._clock() < until else None

    def put(self, authorization: str, bearer: Bearer, expires: float) -> None:
        """Cache the bearer of a verified header until at most `expires`, in seconds since 1970."""
        now = self._clock()
        with self._lock:
            if len(self._entries) >= MAX_TOKENS:
                self._entries.clear()  # tokens still in use are verified again
            self._entries[_digest(authorization)] = (bearer, now, min(now + MAX_AGE_SECONDS, expires))


def _digest(authorization: str) -> bytes:
    return sha256(authorization.encode(errors="surrogatepass")).digest()
