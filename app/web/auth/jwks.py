"""An issuer's published keys by `kid`: known keys are returned at once, and refreshed in time.

Clients decide by their tokens when keys are needed, so a fetch must not cost others anything. There is one fetch at a
time, in a thread of its own, and none within a cool-down after the last. Of the requests that need an unknown key, the
one that started the fetch waits for it; the others wait a moment and then get 503. An issuer that does not respond thus
occupies one of the server's threads, never all.

Only PyJWT's PyJWK is used. Its PyJWKClient (2.15) fetches under the lock that every lookup takes, so that a silent
issuer blocks every thread; it forgets known keys after 300 s even while the issuer is down; its timeout applies to each
read; and a response may have any length. Its PyJWKSet accepts a key without an algorithm for its type's default
algorithm.
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

FETCH_SECONDS = 5.0
"""The longest duration of a fetch."""

FRESH_SECONDS = 300.0
"""The age after which known keys are refreshed. Nobody waits for that unless they are twice as old."""

STALE_SECONDS = 3600.0
"""How much longer known keys are used while the issuer is down, so that short outages go unnoticed."""

COOL_DOWN_SECONDS = 30.0
"""The time between a successful fetch and one for an unknown key: a new key is found no later."""

RETRY_SECONDS = 5.0
"""The time between a failed fetch and the next one."""

MOMENT_SECONDS = 0.25
"""How long requests wait that did not start the fetch: enough for an issuer nearby at a start."""


class PublishedKeys:
    """The keys for one algorithm in the documents that `fetch` returns. Thread-safe."""

    def __init__(self, fetch: Callable[[], bytes], algorithm: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._algorithm = algorithm
        self._clock = clock
        self._lock = threading.Lock()
        self._call = SingleFlight(self._fetch_keys, "issuer-keys")
        self._keys: Mapping[str, Any] = {}
        self._fetched_at = -math.inf
        self._next_fetch = -math.inf
        self._failed = False

    def key(self, key_id: object) -> Any:
        """Return the key of that id. Raises Unauthorized if the issuer has none, and Unavailable if it cannot be
        reached.
        """
        if not isinstance(key_id, str) or not key_id:
            raise Unauthorized("The token was not accepted: it does not name its key (kid).")
        with self._lock:
            known, age = self._known(key_id), self._clock() - self._fetched_at
            if known is not None and age < FRESH_SECONDS:
                return known
            began = not self._call.is_under_way and self._clock() >= self._next_fetch
            if began:
                self._next_fetch = self._clock() + RETRY_SECONDS
                self._call.begin()
        if known is None or (began and age >= 2 * FRESH_SECONDS):  # unused for long, so it may be withdrawn
            self._call.wait(FETCH_SECONDS + 1 if began else MOMENT_SECONDS)
            with self._lock:
                known = self._known(key_id)
        if known is not None:
            return known
        if self._call.is_under_way or self._failed:
            wait = max(1.0, self._next_fetch - self._clock())
            raise Unavailable("The token issuer's keys cannot be fetched now; try again.", wait)
        raise Unauthorized("The token was not accepted: its issuer publishes no key with that id (kid).")

    def _known(self, key_id: str) -> Any:
        usable = self._clock() < self._fetched_at + FRESH_SECONDS + STALE_SECONDS
        return self._keys.get(key_id) if usable else None

    def _fetch_keys(self) -> None:
        keys: Mapping[str, Any] = {}
        try:
            keys = _keys_in(self._fetch(), self._algorithm)
        except (TransportError, ValueError, RecursionError) as error:
            log.warning("issuer_keys_not_fetched", reason=str(error))
        except Exception:
            log.exception("issuer_keys_not_fetched")
        finally:
            with self._lock:
                self._store(keys)

    def _store(self, keys: Mapping[str, Any]) -> None:
        self._failed = not keys
        now = self._clock()
        self._next_fetch = now + (RETRY_SECONDS if self._failed else COOL_DOWN_SECONDS)
        if keys:
            self._keys, self._fetched_at = keys, now


def _keys_in(document: bytes, algorithm: str) -> Mapping[str, Any]:
    """Return the document's keys for signatures by that algorithm, by id. Raises ValueError if there are none."""
    content = json.loads(document)
    published = content.get("keys") if isinstance(content, dict) else None
    keys: dict[str, Any] = {}
    for entry in published if isinstance(published, list) else ():
        key = _usable(entry, algorithm)
        if key is not None:
            keys.setdefault(entry["kid"], key)
    if not keys:
        raise ValueError(f"the document has no key for {algorithm} that has a kid")
    return keys


def _usable(entry: object, algorithm: str) -> Any:
    """Return the key, or None: issuers also publish keys of other types and for other uses."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or not entry["kid"]:
        return None
    if entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        return PyJWK(entry, algorithm).key
    except (PyJWTError, ValueError, TypeError, KeyError) as error:
        log.warning("issuer_key_not_usable", reason=type(error).__name__)
        return None
