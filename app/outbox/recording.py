"""Records results: reads what the decision depends on, decides, and applies the transitions, in one transaction.

Nothing here begins or commits a transaction. The caller calls `after_commit` once its transaction is committed; before
that the results do not count for the next decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog
from sqlalchemy.orm import Session

from app.database import WriteTransaction, counters
from app.outbox.circuit import EndpointState, InFlight, Window
from app.outbox.circuit_breaker import CircuitBreaker, EndpointSnapshot
from app.outbox.decide import Decision, decide
from app.outbox.decide_endpoint import DecisionContext
from app.outbox.messages import Attempt, Classification, SendResult, Verdict
from app.outbox.queue import OutboxQueue
from app.outbox.retry_policy import RetryPolicy
from app.outbox.transitions import AppliedTransitions, apply_transitions

log = structlog.get_logger()

_NEUTRAL_VERDICTS = (Verdict.DELIVERED, Verdict.RETRY)
"""Verdicts that change neither a closed circuit nor a hold, unless the message was a probe."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one transaction recorded: the endpoint's state before, the decision, and the transitions applied."""

    now: float
    before: EndpointState
    decision: Decision
    applied: AppliedTransitions
    holds_any: bool


class Recording:
    """Records the results of one dispatcher and keeps its window of exchanges. `lease` is in seconds."""

    def __init__(self, queue: OutboxQueue, breaker: CircuitBreaker, policy: RetryPolicy, lease: float) -> None:
        self._queue = queue
        self._breaker = breaker
        self._policy = policy
        self._lease = lease
        self._window = Window()

    def record(
        self,
        session: WriteTransaction,
        results: Sequence[SendResult],
        *,
        in_flight: Sequence[InFlight],
        stopping: bool,
    ) -> Recorded:
        """Decide about results and apply the transitions, in the caller's transaction."""
        users = sorted({result.claim.message.user_id for result in results})
        found = self._breaker.fetch(session, users)
        context = self._context(session, results, found, in_flight, stopping=stopping)
        decision = decide(results, context, self._policy)
        if decision.endpoint != found.endpoint:
            # Decide again under the endpoint's lock, because another dispatcher may have changed its state.
            found = self._breaker.lock(session, users)
            context = replace(context, now=found.now, endpoint=found.endpoint)
            decision = decide(results, context, self._policy)
            self._breaker.save(session, found.endpoint, decision.endpoint)
        applied = apply_transitions(session, self._queue, decision.transitions, self._lease)
        holds_any = found.holds_any or bool(decision.endpoint.holds)
        return Recorded(found.now, found.endpoint, decision, applied, holds_any)

    def count(self, session: WriteTransaction, recorded: Recorded) -> None:
        """Add the recorded attempts, latencies and lost leases to the counters."""
        attempts = [
            (transition.claim.message.kind, transition.attempt.classification.verdict)
            for transition in recorded.applied.applied
            if transition.attempt is not None
        ]
        lost = {counters.LEASES_LOST: float(len(recorded.applied.lost))} if recorded.applied.lost else {}
        counters.add(
            session, {**counters.of_attempts(attempts), **counters.of_latencies(recorded.applied.latencies), **lost}
        )

    def after_commit(self, recorded: Recorded) -> None:
        """Log what was committed, and use the new window for the next decision."""
        self._window = recorded.decision.window
        _log_endpoint(self._breaker.endpoint, recorded)
        for transition in recorded.applied.lost:
            message, epoch = transition.claim.message, transition.claim.epoch
            log.warning("lease_lost", media_id=message.media_id, seq=message.seq, epoch=epoch)
        for transition in recorded.applied.applied:
            if transition.attempt is not None:
                message = transition.claim.message
                _log_delivery(message.request_id, message.kind, transition.claim.key, transition.attempt)

    def _context(
        self,
        session: Session,
        results: Sequence[SendResult],
        found: EndpointSnapshot,
        in_flight: Sequence[InFlight],
        *,
        stopping: bool,
    ) -> DecisionContext:
        relevant = [result for result in results if _may_change_endpoint(result, found.endpoint)]
        lost: set[str] = set()
        if relevant:
            leased = self._queue.still_leased(session, [result.claim for result in relevant])
            lost = {result.claim.message.media_id for result in relevant} - leased
        asks_about_others = any(
            result.attempt and result.attempt.classification.verdict in (Verdict.REFUSED, Verdict.RETRY_LIMITED)
            for result in results
        )
        return DecisionContext(
            now=found.now,
            endpoint=found.endpoint,
            window=self._window,
            in_flight=in_flight,
            lost=lost,
            last_delivery=self._queue.last_delivery(session) if asks_about_others else None,
            lease=self._lease,
            stopping=stopping,
        )


def as_ascii(result: SendResult) -> SendResult:
    """Return the result with its texts in printable ASCII, which every database can store."""
    if result.attempt is None:
        return result
    found = result.attempt.classification
    plain = replace(_plain(found), conclusion=_plain(found.conclusion) if found.conclusion else None)
    return SendResult(result.claim, replace(result.attempt, classification=plain))


def _plain(found: Classification) -> Classification:
    return replace(found, detail=_ascii(found.detail), excerpt=_ascii(found.excerpt))


def _ascii(text: str) -> str:
    return "".join(
        character if character.isprintable() else " " for character in text.encode("ascii", "replace").decode()
    )


def _may_change_endpoint(result: SendResult, endpoint: EndpointState) -> bool:
    """Whether the result may change the circuit or a hold; its lease must be checked first."""
    if result.claim.is_probe or result.claim.probes_user or not endpoint.circuit.is_closed:
        return True
    return result.attempt is not None and result.attempt.classification.verdict not in _NEUTRAL_VERDICTS


def _log_endpoint(endpoint: str, recorded: Recorded) -> None:
    before, after = recorded.before, recorded.decision.endpoint
    if after.circuit != before.circuit:
        if after.circuit.is_closed:
            log.info("circuit_closed", endpoint=endpoint)
        else:
            seconds = round(after.circuit.wait(recorded.now), 3)
            log.warning("circuit_open", endpoint=endpoint, seconds=seconds, reason=after.circuit.reason)
    for user_id, hold in after.holds.items():
        if hold != before.holds.get(user_id):
            seconds = round(hold.until - recorded.now, 3)
            log.warning("user_held", user_id=user_id, seconds=seconds, reason=hold.reason)
    for user_id in before.holds.keys() - after.holds.keys():
        log.info("user_no_longer_held", user_id=user_id)


def _log_delivery(request_id: str | None, kind: str, key: tuple[str, int], attempt: Attempt) -> None:
    found = attempt.classification
    # A line for each delivery would be half of the log; the database has all deliveries with their times.
    say = log.debug if found.verdict is Verdict.DELIVERED else log.info
    say(
        "delivery",
        media_id=key[0],
        seq=key[1],
        kind=str(kind),
        request_id=request_id,
        verdict=found.verdict.value,
        status=found.status,
        detail=found.detail,
        milliseconds=round(attempt.duration * 1000, 1),
    )
