"""Who the bearers of recent tokens are, so that a client's token is not decoded again at each of its many requests.

Decoding costs more than anything else that an upload of a photo asks of Flask. A token is known for a minute at most,
and never beyond its own expiry: so a key that its issuer withdraws is done with soon. Tokens themselves are not kept.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

KNOWN_SECONDS = 60.0
MOST_KNOWN = 4096


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whose token it is, and whether it is an administrator's."""

    user_id: str
    is_admin: bool


class KnownTokens:
    """Bearers by their Authorization header. Safe to use from several threads. `clock` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._known: dict[bytes, tuple[Bearer, float, float]] = {}

    def bearer(self, authorization: str) -> Bearer | None:
        """Who that header was found to speak for within the last minute; None where it must be looked at."""
        known = self._known.get(_digest(authorization))
        if known is None:
            return None
        bearer, since, until = known
        # Also not before: a clock that was set back must not make a minute of an hour.
        return bearer if since <= self._clock() < until else None

    def note(self, authorization: str, bearer: Bearer, expires: float) -> None:
        """That header was found good, and will be until `expires`, in seconds since 1970."""
        now = self._clock()
        with self._guard:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()  # whoever still comes is looked at once more
            self._known[_digest(authorization)] = (bearer, now, min(now + KNOWN_SECONDS, expires))


def _digest(authorization: str) -> bytes:
    return sha256(authorization.encode(errors="surrogatepass")).digest()
