"""How long to wait: decisions only, no clock read and nothing slept here but by tenacity.

One policy serves both kinds of waiting: within a claim tenacity repeats an attempt that never reached the other side;
between claims the same exponential waits, with additive jitter, are stored as delays on the database's clock.
"""

import random
import threading
from dataclasses import dataclass

from tenacity import Retrying, retry_if_result, sleep_using_event, stop_after_attempt

from app.outbox.messages import Classification

LONGEST_RETRY_AFTER = 3600.0
"""A Retry-After is heeded for an hour at most, so nothing of the circuit breaker or of a hold is due later."""

_MOST_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait: `first`, doubled after each further failure, at least `least`; with up to `jitter` on top, and
    at most `longest` in all."""

    first: float
    longest: float
    jitter: float = 0.0
    least: float = 0.0

    def delay(self, failures: int, retry_after: float | None = None) -> float:
        """The wait after so many failures (1, 2, …), or as long as the other side asks for, if that is longer."""
        doubled = self.first * 2.0 ** min(max(0, failures - 1), _MOST_DOUBLINGS)
        wait = min(max(doubled, self.least) + random.uniform(0, self.jitter), self.longest)
        return max(wait, retry_after or 0.0)


def fixed(seconds: float) -> Backoff:
    """The same wait after each failure."""
    return Backoff(seconds, seconds)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits in seconds.

    `media_wait`: a media item backs off, up to 15 minutes. `circuit_wait`: between probes of an open circuit, which
    stay frequent, because one request every half minute costs the other side nothing and its return should be noticed
    soon. `unfit_wait`: of a message that met an unfit answer while the circuit is closed; short for long, because
    where every second answer is unfit a few in a row are no sign of anything. `hold_wait`: between probes for a held
    user. `limited_wait`: of an answer that is not the last word.
    """

    media_wait: Backoff = Backoff(first=1, longest=15 * 60, jitter=1)
    circuit_wait: Backoff = Backoff(first=1, longest=30, jitter=0.25)
    unfit_wait: Backoff = Backoff(first=1 / 512, least=1, longest=30, jitter=0.25)  # a second each for ten attempts
    hold_wait: Backoff = Backoff(first=1, longest=300, jitter=0.25)
    limited_wait: Backoff = Backoff(first=1, longest=30, jitter=1)
    attempts_within_claim: int = 3
    wait_within_claim: Backoff = Backoff(first=0.05, longest=0.5, jitter=0.05)

    def within_claim(self, stopping: threading.Event) -> Retrying:
        """Repeats an attempt while it never reached the other side; a set `stopping` ends the waiting at once."""
        return Retrying(
            retry=retry_if_result(
                lambda result: isinstance(result, Classification) and result.unsent and not stopping.is_set()
            ),
            stop=stop_after_attempt(self.attempts_within_claim),
            wait=lambda state: self.wait_within_claim.delay(state.attempt_number),
            sleep=sleep_using_event(stopping),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
