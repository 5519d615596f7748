"""The keys that an issuer publishes, by their `kid`: what is known is answered at once, and looked up again in time.

Whoever sends tokens decides when keys are asked for, so asking must cost nobody else anything. There is one look at a
time, in a thread of its own, and none within a cool-down of the last. Of the requests that need a key which is not
known yet, the one that began the look waits for it; the others wait a moment, and are then told to come again. So an
issuer that swallows every packet holds one of the server's threads, never all.

PyJWT's PyJWK serves here. Its PyJWKClient (2.15) loses what reliability asks for: it fetches under the lock that every
look-up takes, so that such an issuer holds every thread; it forgets known keys 300 s after their fetch, also while the
issuer is down; its time limit is for each read, and an answer may have any length. Its PyJWKSet takes a key that names
no algorithm for its type's default one.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from app.errors import Unauthorized, Unavailable
from app.http_exchange.responses import TransportError
from app.process.single_flight import SingleFlight

log = structlog.get_logger()

LOOK_SECONDS = 5.0
"""Longest that a look may take."""

FRESH_SECONDS = 300.0
"""After this, known keys are looked up again; nobody waits for that, unless they are twice as old already."""

STALE_SECONDS = 3600.0
"""While the issuer is down, known keys are used this much longer: a short outage there is none here."""

COOL_DOWN_SECONDS = 30.0
"""Between a look that brought keys and one for a key that was not among them: a new key is found no later."""

RETRY_SECONDS = 5.0
"""Between a look that failed and the next."""

MOMENT_SECONDS = 0.25
"""How long those wait who did not begin the look: enough for an issuer nearby, so that a start refuses nobody."""


class PublishedKeys:
    """The keys for one algorithm in the documents that `look` brings. Safe to use from several threads."""

    def __init__(self, look: Callable[[], bytes], algorithm: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._algorithm = algorithm
        self._clock = clock
        self._guard = threading.Lock()
        self._call = SingleFlight(self._look_and_take, "issuer-keys")
        self._keys: Mapping[str, Any] = {}
        self._brought_at = -math.inf
        self._next_look = -math.inf
        self._failed = False

    def key(self, key_id: object) -> Any:
        """The key of that name. Raises Unauthorized where the issuer has none, Unavailable where it cannot be asked."""
        if not isinstance(key_id, str) or not key_id:
            raise Unauthorized("The token was not accepted: it does not name its key (kid).")
        with self._guard:
            known, age = self._known(key_id), self._clock() - self._brought_at
            if known is not None and age < FRESH_SECONDS:
                return known
            began = not self._call.is_under_way and self._clock() >= self._next_look
            if began:
                self._next_look = self._clock() + RETRY_SECONDS
                self._call.begin()
        if known is None or (began and age >= 2 * FRESH_SECONDS):  # nobody asked for long: it may be withdrawn
            self._call.wait(LOOK_SECONDS + 1 if began else MOMENT_SECONDS)
            with self._guard:
                known = self._known(key_id)
        if known is not None:
            return known
        if self._call.is_under_way or self._failed:
            wait = max(1.0, self._next_look - self._clock())
            raise Unavailable("The token issuer's keys cannot be fetched now; try again.", wait)
        raise Unauthorized("The token was not accepted: its issuer publishes no such key (kid).")

    def _known(self, key_id: str) -> Any:
        usable = self._clock() < self._brought_at + FRESH_SECONDS + STALE_SECONDS
        return self._keys.get(key_id) if usable else None

    def _look_and_take(self) -> None:
        keys: Mapping[str, Any] = {}
        try:
            keys = _keys_in(self._look(), self._algorithm)
        except (TransportError, ValueError, RecursionError) as error:
            log.warning("issuer_keys_not_fetched", reason=str(error))
        except Exception:
            log.exception("issuer_keys_not_fetched")
        finally:
            with self._guard:
                self._take(keys)

    def _take(self, keys: Mapping[str, Any]) -> None:
        self._failed = not keys
        now = self._clock()
        self._next_look = now + (RETRY_SECONDS if self._failed else COOL_DOWN_SECONDS)
        if keys:
            self._keys, self._brought_at = keys, now


def _keys_in(document: bytes, algorithm: str) -> Mapping[str, Any]:
    """The keys that are for signatures by that algorithm, by their ids. Raises ValueError where there are none."""
    content = json.loads(document)
    published = content.get("keys") if isinstance(content, dict) else None
    keys: dict[str, Any] = {}
    for entry in published if isinstance(published, list) else ():
        key = _usable(entry, algorithm)
        if key is not None:
            keys.setdefault(entry["kid"], key)
    if not keys:
        raise ValueError(f"the document holds no key for {algorithm} that has a kid")
    return keys


def _usable(entry: object, algorithm: str) -> Any:
    """The key, or None: issuers publish keys of other kinds and for other uses beside those that are meant here."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or not entry["kid"]:
        return None
    if entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        return PyJWK(entry, algorithm).key
    except (PyJWTError, ValueError, TypeError, KeyError) as error:
        log.warning("issuer_key_not_usable", reason=type(error).__name__)
        return None
