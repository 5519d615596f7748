"""When to try again: decisions only, no clock read and nothing slept here but by tenacity.

One policy serves both kinds of waiting: within a claim tenacity repeats a try that never reached the other side;
between claims the same exponential wait, with additive jitter, is stored as a delay on the database's clock.
"""

import threading
from dataclasses import dataclass, field

from tenacity import RetryCallState, Retrying, retry_if_result, sleep_using_event, stop_after_attempt
from tenacity.wait import wait_base, wait_exponential_jitter

from app.outbox.messages import Answer


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits in seconds.

    A media of its own backs off up to 15 minutes. The gate's probes stay frequent, because one connection every half
    minute costs the other side nothing and its return should be noticed soon; a Retry-After may make it an hour.
    """

    media_wait: wait_base = field(default_factory=lambda: wait_exponential_jitter(initial=1, max=15 * 60, jitter=1))
    gate_wait: wait_base = field(default_factory=lambda: wait_exponential_jitter(initial=1, max=30, jitter=0.25))
    tries_within_claim: int = 3
    wait_within_claim: wait_base = field(
        default_factory=lambda: wait_exponential_jitter(multiplier=0.05, max=0.5, jitter=0.05)
    )

    def media_delay(self, attempts: int) -> float:
        """Seconds until the next try of a media whose head has failed `attempts` times (1, 2, …)."""
        return self.media_wait(_after(attempts))

    def gate_delay(self, failures: int, retry_after: float | None) -> float:
        """Seconds that the gate stays closed after its `failures`-th failure: the longer of backoff and Retry-After."""
        return max(self.gate_wait(_after(failures)), retry_after or 0.0)

    def within_claim(self, stopping: threading.Event) -> Retrying:
        """Repeats a try while it never reached the other side; a set `stopping` ends the waiting at once."""
        return Retrying(
            retry=retry_if_result(
                lambda answer: isinstance(answer, Answer) and answer.unsent and not stopping.is_set()
            ),
            stop=stop_after_attempt(self.tries_within_claim),
            wait=self.wait_within_claim,
            sleep=sleep_using_event(stopping),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )


def _after(attempts: int) -> RetryCallState:
    state = RetryCallState(retry_object=Retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = max(1, attempts)
    return state
