"""Decides what follows from attempts: a transition for each stream and a new state of the endpoint.

`decide` is a pure function of the claims, their results and the endpoint's state; waits with jitter come from the retry
policy. `app.outbox.transitions` applies the transitions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from app.outbox.circuit import EndpointState, Window
from app.outbox.decide_endpoint import DecisionContext, decide_endpoint, is_deferred
from app.outbox.messages import Attempt, Claim, Classification, SendResult, Verdict
from app.outbox.retry_policy import RetryPolicy

LIMITED_ATTEMPTS = 5
"""Attempts, over at least CONCLUDE_AFTER_SECONDS, before an answer with the verdict RETRY_LIMITED is final."""

REFUSED_ATTEMPTS = 3
"""Attempts, over at least CONCLUDE_AFTER_SECONDS, before a message is parked while no other message is delivered."""

CONCLUDE_AFTER_SECONDS = 600.0
REFUSED_AGAIN_SECONDS = 1.0
"""Wait before a refused message is sent again. Deliveries of other items meanwhile show that the refusal is its own."""

_INCONCLUSIVE = (Verdict.RETRY_LIMITED, Verdict.REFUSED, Verdict.PARK)


class Action(StrEnum):
    """What is done to a stream."""

    DELIVERED = "delivered"  # move on to the next message
    RETRY = "retry"  # send the message again after a delay
    PARK = "park"  # set the stream aside until a person retries or skips the message
    RELEASE = "release"  # nothing was sent: give the lease back
    LEASE_LOST = "lease_lost"  # another dispatcher may have claimed the stream: change nothing


@dataclass(frozen=True, slots=True)
class Transition:
    """The change of one claimed stream.

    After DELIVERED the dispatcher keeps the claim for the next message if `continues`. RETRY makes the stream due in
    `delay` seconds. `failures` and `counted_attempts` are the stream's new values. `refused` starts the time of
    refusals, `refused_since`, unless it has started.
    """

    action: Action
    claim: Claim
    attempt: Attempt | None = None
    continues: bool = False
    delay: float = 0.0
    failures: int = 0
    counted_attempts: int = 0
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """A transition for each claim, the endpoint's new state and the dispatcher's new window."""

    transitions: Sequence[Transition]
    endpoint: EndpointState
    window: Window


def may_conclude(claim: Claim, waited: float) -> bool:
    """Whether the claim's next answer may be final, after `waited` seconds of refusals."""
    return claim.counted_attempts + 1 >= LIMITED_ATTEMPTS and waited >= CONCLUDE_AFTER_SECONDS


def decide(results: Sequence[SendResult], context: DecisionContext, policy: RetryPolicy) -> Decision:
    """Decide the endpoint's new state from all results, and then each stream's transition by that state."""
    verdicts = {result.claim.key: _concluded(result, context) for result in results}
    endpoint, window = decide_endpoint(results, verdicts, context, policy)
    streams = _Streams(results, endpoint, context, policy)
    return Decision([streams.transition(result, verdicts[result.claim.key]) for result in results], endpoint, window)


def _concluded(result: SendResult, context: DecisionContext) -> Classification | None:
    """Return the classification, or the conclusion of a RETRY_LIMITED that has lasted long enough; None if unsent."""
    if result.attempt is None:
        return None
    found, waited = result.attempt.classification, context.seconds_since(result.claim.refused_since)
    if (
        found.verdict is not Verdict.RETRY_LIMITED
        or is_deferred(found, waited)
        or not may_conclude(result.claim, waited)
    ):
        return found
    return found.conclusion or replace(found, verdict=Verdict.PARK)


class _Streams:
    """Decides each stream's transition by the endpoint's new state."""

    def __init__(
        self, results: Sequence[SendResult], endpoint: EndpointState, context: DecisionContext, policy: RetryPolicy
    ) -> None:
        self._endpoint = endpoint
        self._context = context
        self._policy = policy
        self._delivered_now = {
            result.claim.message.media_id
            for result in results
            if result.attempt and result.attempt.classification.verdict is Verdict.DELIVERED
        }

    def transition(self, result: SendResult, found: Classification | None) -> Transition:
        claim, attempt = result.claim, result.attempt
        if claim.message.media_id in self._context.lost:
            return Transition(Action.LEASE_LOST, claim, attempt)
        if attempt is None or found is None:
            return Transition(Action.RELEASE, claim, failures=claim.failures, counted_attempts=claim.counted_attempts)
        return self._after(claim, replace(attempt, classification=found))

    def _after(self, claim: Claim, attempt: Attempt) -> Transition:
        found = attempt.classification
        if found.verdict in _INCONCLUSIVE and is_deferred(found, self._waited(claim)):
            delay = self._policy.limited_wait.delay(claim.failures + 1, found.retry_after)
            return self._retry(claim, attempt, delay, failed=True, refused=True)
        by_verdict = {
            Verdict.DELIVERED: self._delivered,
            Verdict.RETRY: self._failed,
            Verdict.RETRY_LIMITED: self._limited,
            Verdict.REFUSED: self._refused,
            Verdict.PARK: self._park,
            Verdict.HOLD: self._held,
            Verdict.UNFIT: self._unfit,
        }
        return by_verdict[found.verdict](claim, attempt)

    def _delivered(self, claim: Claim, attempt: Attempt) -> Transition:
        held = claim.message.user_id in self._endpoint.holds
        flows = self._endpoint.circuit.is_closed and not held and not self._context.stopping
        return Transition(Action.DELIVERED, claim, attempt, continues=flows)

    def _failed(self, claim: Claim, attempt: Attempt) -> Transition:
        if claim.is_probe and not self._endpoint.circuit.is_closed:  # a probe that got no answer
            return self._unfit(claim, attempt)
        delay = self._policy.media_wait.delay(claim.failures + 1, attempt.classification.retry_after)
        return self._retry(claim, attempt, delay, failed=True)

    def _limited(self, claim: Claim, attempt: Attempt) -> Transition:
        delay = self._policy.limited_wait.delay(claim.counted_attempts + 1)
        return self._retry(claim, attempt, delay, counted=True, refused=True)

    def _held(self, claim: Claim, attempt: Attempt) -> Transition:
        hold = self._endpoint.holds[claim.message.user_id]
        return self._retry(claim, attempt, max(0.0, hold.until - self._context.now))

    def _refused(self, claim: Claim, attempt: Attempt) -> Transition:
        if self._endpoint.circuit.refuses_everything:
            return self._unfit(claim, attempt)
        counted, waited = claim.counted_attempts + 1, self._waited(claim)
        if (counted > 1 and self._others_got_through(claim)) or (
            counted >= REFUSED_ATTEMPTS and waited >= CONCLUDE_AFTER_SECONDS
        ):
            return self._park(claim, attempt)
        delay = REFUSED_AGAIN_SECONDS if counted == 1 else max(REFUSED_AGAIN_SECONDS, CONCLUDE_AFTER_SECONDS - waited)
        return self._retry(claim, attempt, delay, counted=True, refused=True)

    def _waited(self, claim: Claim) -> float:
        return self._context.seconds_since(claim.refused_since)

    def _others_got_through(self, claim: Claim) -> bool:
        """Whether a message of another media item was delivered since this one was first refused."""
        since, last = claim.refused_since, self._context.last_delivery
        return bool(self._delivered_now - {claim.message.media_id}) or (
            since is not None and last is not None and last > since
        )

    def _unfit(self, claim: Claim, attempt: Attempt) -> Transition:
        circuit, asked = self._endpoint.circuit, attempt.classification.retry_after
        if circuit.is_closed:
            delay = self._policy.unfit_wait.delay(claim.attempts + 1, asked)
        else:
            delay = max(circuit.wait(self._context.now), self._policy.circuit_wait.delay(1, asked))
        return self._retry(claim, attempt, delay)

    def _park(self, claim: Claim, attempt: Attempt) -> Transition:
        return Transition(
            Action.PARK, claim, attempt, failures=claim.failures, counted_attempts=claim.counted_attempts + 1,
            refused=True,
        )  # fmt: skip

    def _retry(
        self, claim: Claim, attempt: Attempt, delay: float, *, failed: bool = False, counted: bool = False,
        refused: bool = False,
    ) -> Transition:  # fmt: skip
        return Transition(
            Action.RETRY,
            claim,
            attempt,
            delay=delay,
            failures=claim.failures + int(failed),
            counted_attempts=claim.counted_attempts + int(counted),
            refused=refused,
        )
