"""How long to wait: decisions only, no clock read and nothing slept here but by tenacity.

One policy serves both kinds of waiting: within a claim tenacity repeats an attempt that never reached the other side;
between claims the same exponential waits, with additive jitter, are stored as delays on the database's clock.
"""

import threading
from dataclasses import dataclass, field

from tenacity import RetryCallState, Retrying, retry_if_result, sleep_using_event, stop_after_attempt
from tenacity.wait import wait_base, wait_exponential, wait_exponential_jitter, wait_random

from app.outbox.messages import Classification

LONGEST_RETRY_AFTER = 3600.0
"""A Retry-After is heeded for an hour at most, so nothing of the circuit breaker or of a hold is due later."""


def _a_second_each_at_first() -> wait_base:
    """A second for each of the first ten attempts, then twice as long each time, up to half a minute."""
    return wait_exponential(multiplier=1 / 512, min=1, max=30) + wait_random(0, 0.25)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits in seconds.

    `media_wait`: a media item backs off, up to 15 minutes. `circuit_wait`: between probes of an open circuit, which
    stay frequent, because one request every half minute costs the other side nothing and its return should be noticed
    soon. `unfit_wait`: of a message that met an unfit answer while the circuit is closed; short for long, because
    where every second answer is unfit a few in a row are no sign of anything. `hold_wait`: between probes for a held
    user. `limited_wait`: of an answer that is not the last word.
    """

    media_wait: wait_base = field(default_factory=lambda: wait_exponential_jitter(initial=1, max=15 * 60, jitter=1))
    circuit_wait: wait_base = field(default_factory=lambda: wait_exponential_jitter(initial=1, max=30, jitter=0.25))
    unfit_wait: wait_base = field(default_factory=_a_second_each_at_first)
    hold_wait: wait_base = field(default_factory=lambda: wait_exponential_jitter(initial=1, max=300, jitter=0.25))
    limited_wait: wait_base = field(default_factory=lambda: wait_exponential_jitter(initial=1, max=30, jitter=1))
    tries_within_claim: int = 3
    wait_within_claim: wait_base = field(
        default_factory=lambda: wait_exponential_jitter(multiplier=0.05, max=0.5, jitter=0.05)
    )

    def media_delay(self, failures: int, retry_after: float | None = None) -> float:
        """Until the next attempt of a message that has failed so often (1, 2, …)."""
        return _longer(self.media_wait, failures, retry_after)

    def circuit_delay(self, failures: int, retry_after: float | None = None) -> float:
        """Until the next probe of a circuit after its `failures`-th failure: the longer of backoff and Retry-After."""
        return _longer(self.circuit_wait, failures, retry_after)

    def unfit_delay(self, attempts: int, retry_after: float | None = None) -> float:
        """Until the next attempt of a message whose `attempts`-th met an unfit answer while the circuit is closed."""
        return _longer(self.unfit_wait, attempts, retry_after)

    def hold_delay(self, failures: int, retry_after: float | None = None) -> float:
        """Until the next probe for a user who was refused `failures` times in a row."""
        return _longer(self.hold_wait, failures, retry_after)

    def limited_delay(self, counted_attempts: int, retry_after: float | None = None) -> float:
        """Until the next attempt of a message whose answer is not the last word."""
        return _longer(self.limited_wait, counted_attempts, retry_after)

    def within_claim(self, stopping: threading.Event) -> Retrying:
        """Repeats an attempt while it never reached the other side; a set `stopping` ends the waiting at once."""
        return Retrying(
            retry=retry_if_result(
                lambda result: isinstance(result, Classification) and result.unsent and not stopping.is_set()
            ),
            stop=stop_after_attempt(self.tries_within_claim),
            wait=self.wait_within_claim,
            sleep=sleep_using_event(stopping),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )


def _longer(wait: wait_base, failures: int, retry_after: float | None) -> float:
    state = RetryCallState(retry_object=Retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = max(1, failures)
    return max(wait(state), retry_after or 0.0)
