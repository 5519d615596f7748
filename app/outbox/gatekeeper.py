"""What answers mean for the gate. Nothing here begins or commits a transaction."""

from collections.abc import Sequence

import structlog
from sqlalchemy.orm import Session

from app.outbox.gate import Gate, GateCondition
from app.outbox.messages import Verdict
from app.outbox.queue import OutboxQueue, Try
from app.outbox.retry import RetryPolicy
from app.outbox.senders import Sent

log = structlog.get_logger()


def closes_gate(sent: Sent) -> bool:
    """The answer says that the endpoint is unfit, or there was none to a probe."""
    if sent.tried is None:
        return False
    answer = sent.tried.answer
    silent = answer.verdict is Verdict.RETRY and answer.status is None
    return answer.verdict is Verdict.CLOSE_GATE or (sent.probe and silent)


class GateKeeper:
    """Closes and opens the gate by what came back. `lease` is how long a probe may be under way, in seconds."""

    def __init__(self, gate: Gate, queue: OutboxQueue, policy: RetryPolicy, *, lease: float) -> None:
        self._gate = gate
        self._queue = queue
        self._policy = policy
        self._lease = lease

    def judge(self, session: Session, sent: Sequence[Sent]) -> GateCondition:
        """How the gate stands after these answers.

        One whose lease was lost says nothing: another dispatcher has gone on from there.
        """
        telling = [one for one in sent if one.probe or closes_gate(one)]
        telling = [one for one in telling if self._queue.holds(session, one.claim)]
        if not telling:
            return self._gate.condition(session)
        gate = self._gate.hold(session)
        for one in telling:
            gate = self._after(session, gate, one)
        return gate

    def _after(self, session: Session, gate: GateCondition, one: Sent) -> GateCondition:
        if one.tried is None:
            self._gate.probe_now(session)
            return gate
        if not closes_gate(one):
            self._gate.open(session)
            log.info("gate_opened", endpoint=self._gate.endpoint)
            return GateCondition()
        if one.probe:
            return self._close(session, gate.failures + 1, one.tried, at_least=self._asked_meanwhile(gate))
        if gate.is_open:
            return self._close(session, 1, one.tried)
        if (one.tried.answer.retry_after or 0.0) > (gate.closed_for or 0.0):
            return self._close(session, gate.failures, one.tried)
        return gate

    def _asked_meanwhile(self, gate: GateCondition) -> float:
        """A gate closed for longer than a probe takes was closed so by another's Retry-After."""
        closed_for = gate.closed_for or 0.0
        return closed_for if closed_for > self._lease else 0.0

    def _close(self, session: Session, failures: int, tried: Try, *, at_least: float = 0.0) -> GateCondition:
        delay = max(at_least, self._policy.gate_delay(failures, tried.answer.retry_after))
        self._gate.close(session, failures=failures, delay=delay, reason=tried.answer.detail)
        log.warning("gate_closed", endpoint=self._gate.endpoint, seconds=round(delay, 3), reason=tried.answer.detail)
        return GateCondition(delay, failures, tried.answer.detail)
