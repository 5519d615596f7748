"""How long to wait before a retry: exponential backoff with additive jitter.

Within a claim, tenacity repeats requests that never reached the other side. Between claims, the waits are stored as
delays on the database's clock. Nothing here reads a clock.
"""

import random
import threading
from dataclasses import dataclass

from tenacity import Retrying, retry_if_result, sleep_using_event, stop_after_attempt

from app.outbox.messages import Classification

LONGEST_RETRY_AFTER = 3600.0
"""The longest Retry-After in seconds that is obeyed, and so the longest wait of a circuit or a hold."""

_MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """A wait in seconds: `first` doubled after each further failure, at least `least`, plus up to `jitter`, and at most
    `longest`."""

    first: float
    longest: float
    jitter: float = 0.0
    least: float = 0.0

    def delay(self, failures: int, retry_after: float | None = None) -> float:
        """Return the wait after `failures` failures (1, 2, …), or `retry_after` if that is longer."""
        doubled = self.first * 2.0 ** min(max(0, failures - 1), _MAX_DOUBLINGS)
        wait = min(max(doubled, self.least) + random.uniform(0, self.jitter), self.longest)
        return max(wait, retry_after or 0.0)


def fixed(seconds: float) -> Backoff:
    """Return a backoff of the same wait after each failure."""
    return Backoff(seconds, seconds)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits in seconds.

    - `media_wait`: after a failure of one media item, up to 15 minutes.
    - `circuit_wait`: between probes of an open circuit. Short, because one request each half minute costs the other
      side little and its recovery should be noticed soon.
    - `unfit_wait`: after an unfit answer while the circuit is closed. One second for the first ten attempts, because
      an endpoint that fails every second request also gives a few unfit answers in a row to one message.
    - `hold_wait`: between probes of a held user.
    - `limited_wait`: after an answer with the verdict RETRY_LIMITED.
    """

    media_wait: Backoff = Backoff(first=1, longest=15 * 60, jitter=1)
    circuit_wait: Backoff = Backoff(first=1, longest=30, jitter=0.25)
    unfit_wait: Backoff = Backoff(first=1 / 512, least=1, longest=30, jitter=0.25)
    hold_wait: Backoff = Backoff(first=1, longest=300, jitter=0.25)
    limited_wait: Backoff = Backoff(first=1, longest=30, jitter=1)
    attempts_within_claim: int = 3
    wait_within_claim: Backoff = Backoff(first=0.05, longest=0.5, jitter=0.05)

    def within_claim(self, stopping: threading.Event) -> Retrying:
        """Return a retrier for requests that never reached the other side; setting `stopping` ends its waits."""
        return Retrying(
            retry=retry_if_result(
                lambda result: isinstance(result, Classification) and result.unsent and not stopping.is_set()
            ),
            stop=stop_after_attempt(self.attempts_within_claim),
            wait=lambda state: self.wait_within_claim.delay(state.attempt_number),
            sleep=sleep_using_event(stopping),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
