"""Records what came back in one transaction: the context is read, decided on, and what was decided is applied.

Nothing here begins or commits a transaction. What is told afterwards (`tell`) is told once the transaction is
committed; until then nothing of it counts for the next decision either.
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
"""While the circuit is closed, these change neither it nor a hold, but of a probe."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one transaction recorded: how the endpoint stood before, what was decided, and what of that held."""

    now: float
    before: EndpointState
    decision: Decision
    result: AppliedTransitions
    holds_any: bool


class Recording:
    """Records for one dispatcher, whose window of exchanges it keeps. `lease` is in seconds."""

    def __init__(self, queue: OutboxQueue, breaker: CircuitBreaker, policy: RetryPolicy, lease: float) -> None:
        self._queue = queue
        self._breaker = breaker
        self._policy = policy
        self._lease = lease
        self._window = Window()

    def record(
        self,
        session: WriteTransaction,
        returned: Sequence[SendResult],
        *,
        in_flight: Sequence[InFlight],
        stopping: bool,
    ) -> Recorded:
        """Decide and apply, in the caller's transaction."""
        users = sorted({one.claim.message.user_id for one in returned})
        found = self._breaker.fetch(session, users)
        context = self._context(session, returned, found, in_flight, stopping=stopping)
        decision = decide(returned, context, self._policy)
        if decision.endpoint != found.endpoint:
            # Another dispatcher may have changed it meanwhile: decided anew by what nobody else can change any more.
            found = self._breaker.lock(session, users)
            context = replace(context, now=found.now, endpoint=found.endpoint)
            decision = decide(returned, context, self._policy)
            self._breaker.save(session, found.endpoint, decision.endpoint)
        result = apply_transitions(session, self._queue, decision.transitions, self._lease)
        holds_any = found.holds_any or bool(decision.endpoint.holds)
        return Recorded(found.now, found.endpoint, decision, result, holds_any)

    def count(self, session: WriteTransaction, recorded: Recorded) -> None:
        """Add to the counters what was recorded."""
        result = recorded.result
        attempts = [
            (one.claim.message.kind, one.attempt.classification.verdict)
            for one in result.applied
            if one.attempt is not None
        ]
        lost = {counters.LEASES_LOST: float(len(result.lost))} if result.lost else {}
        counters.add(session, {**counters.of_attempts(attempts), **counters.of_latencies(result.latencies), **lost})

    def after_commit(self, recorded: Recorded) -> None:
        """Log what was committed, and take the exchanges into account from now on."""
        self._window = recorded.decision.window
        _log_endpoint(self._breaker.endpoint, recorded)
        for one in recorded.result.lost:
            message, epoch = one.claim.message, one.claim.epoch
            log.warning("lease_lost", media_id=message.media_id, seq=message.seq, epoch=epoch)
        for one in recorded.result.applied:
            if one.attempt is not None:
                _log_delivery(one.claim.message.request_id, one.claim.message.kind, one.claim.key, one.attempt)

    def _context(
        self,
        session: Session,
        returned: Sequence[SendResult],
        found: EndpointSnapshot,
        in_flight: Sequence[InFlight],
        *,
        stopping: bool,
    ) -> DecisionContext:
        relevant = [one for one in returned if _may_change_endpoint(one, found.endpoint)]
        lost: set[str] = set()
        if relevant:
            leased = self._queue.still_leased(session, [one.claim for one in relevant])
            lost = {one.claim.message.media_id for one in relevant} - leased
        asks_about_others = any(
            one.attempt and one.attempt.classification.verdict in (Verdict.REFUSED, Verdict.RETRY_LIMITED)
            for one in returned
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


def as_ascii(one: SendResult) -> SendResult:
    """The same with texts that every encoding has, for a database that stores no others."""
    if one.attempt is None:
        return one
    found = one.attempt.classification
    plain = replace(_plain(found), conclusion=_plain(found.conclusion) if found.conclusion else None)
    return SendResult(one.claim, replace(one.attempt, classification=plain))


def _plain(found: Classification) -> Classification:
    return replace(found, detail=_ascii(found.detail), excerpt=_ascii(found.excerpt))


def _ascii(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text.encode("ascii", "replace").decode())


def _may_change_endpoint(one: SendResult, endpoint: EndpointState) -> bool:
    """Whether circuit or holds may change by it: then its lease must be known to be its own."""
    if one.claim.is_probe or one.claim.probes_user or not endpoint.circuit.is_closed:
        return True
    return one.attempt is not None and one.attempt.classification.verdict not in _NEUTRAL_VERDICTS


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
    # One line for each delivery would be half of the log: what arrived is in the database, with its time.
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
