"""What answers mean for the endpoint: its circuit breaker, and the holds on its users. Pure, as `app.outbox.decide`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.outbox.circuit import Circuit, Endpoint, Exchange, Hold, Sender, Vote, Window
from app.outbox.messages import Claim, Classification, Returned, Verdict
from app.outbox.retry_policy import RetryPolicy

RETRY_AFTER_HEEDED_FOR = 86_400.0
"""A refusal that says when to return is no last word, unless that has gone on for a day."""

LET_IN = frozenset(Verdict) - {Verdict.HOLD, Verdict.UNFIT, Verdict.RETRY}
"""Answers that the endpoint gives only to users whom it lets in."""

Verdicts = Mapping[tuple[str, int], Classification | None]
"""What each claim's answer means by now, by the claim's key."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known beside the answers.

    `now` is the database's clock, `lease` how long a probe may be under way, `under_way` what has not come back yet,
    `lost` the media items whose leases are lost, `last_delivery` when any message was last delivered.
    """

    now: float
    endpoint: Endpoint
    window: Window = field(default_factory=Window)
    under_way: Sequence[Sender] = ()
    lost: Collection[str] = ()
    last_delivery: float | None = None
    lease: float = 30.0
    stopping: bool = False

    def seconds_since(self, moment: float | None) -> float:
        """How long ago that was; 0 where it was not, or where the clock was set back meanwhile."""
        return 0.0 if moment is None else max(0.0, self.now - moment)


def is_put_off(found: Classification, waited: float) -> bool:
    """Whether a refusal means "later": it says when to return, and that has not gone on for too long."""
    return found.retry_after is not None and waited < RETRY_AFTER_HEEDED_FOR


def decide_endpoint(
    returned: Sequence[Returned], verdicts: Verdicts, situation: Situation, policy: RetryPolicy
) -> tuple[Endpoint, Window]:
    """The endpoint's condition and the window of exchanges after these answers.

    A claim whose lease was lost says nothing: another dispatcher has gone on from there.
    """
    telling = [one for one in returned if one.claim.message.media_id not in situation.lost]
    circuit, window = _circuit(telling, verdicts, situation, policy)
    return Endpoint(circuit, _holds(telling, situation, policy)), window


def _sender(one: Returned) -> Sender:
    return Sender(one.claim.message.media_id, one.claim.message.user_id)


def _vote(found: Classification, waited: float) -> Vote | None:
    """None where the answer says nothing of the endpoint: of a held user, of unknown outcome, not the last word."""
    if found.verdict is Verdict.UNFIT:
        return Vote.UNFIT
    if found.verdict is Verdict.REFUSED and not is_put_off(found, waited):
        return Vote.REFUSED
    return Vote.FIT if found.verdict in (Verdict.DELIVERED, Verdict.PARK) else None


def _circuit(
    telling: Sequence[Returned], verdicts: Verdicts, situation: Situation, policy: RetryPolicy
) -> tuple[Circuit, Window]:
    circuit, window, now = situation.endpoint.circuit, situation.window, situation.now
    senders = [*situation.under_way, *(_sender(one) for one in telling)]
    for one in telling:
        found = verdicts[one.claim.key]
        if found is None or one.attempt is None:
            circuit = circuit.probe_given_up(now) if one.claim.is_probe and not circuit.is_closed else circuit
            continue
        vote = _vote(found, situation.seconds_since(one.claim.refused_since))
        if vote is not None:
            exchange = Exchange(vote, one.claim.message.media_id, one.claim.message.user_id, now)
            window = window.with_exchanges([exchange] * one.attempt.sends)
        if circuit.is_closed:
            circuit = _opened(circuit, window, senders, found, now, policy)
        elif _fails_probe(one.claim, found, vote, circuit):
            circuit = _still_open(circuit, one, found, situation, policy)
        elif one.claim.is_probe or vote is Vote.FIT:
            circuit, window = Circuit(), Window()
    return circuit, window


def _opened(
    circuit: Circuit, window: Window, senders: Sequence[Sender], found: Classification, now: float, policy: RetryPolicy
) -> Circuit:
    match window.opening_vote(senders, now):
        case Vote.UNFIT:
            return circuit.opened(now, policy.circuit_wait.delay(1, found.retry_after), found.detail)
        case Vote.REFUSED:
            reason = f"refuses everything: {found.detail}"
            return circuit.opened(now, policy.circuit_wait.delay(1), reason, refusing_since=window.refusing_since)
        case _:
            return circuit


def _fails_probe(claim: Claim, found: Classification, vote: Vote | None, circuit: Circuit) -> bool:
    """An answer that leaves the circuit open: of its probe, or of a message that was under way when it opened."""
    if vote is Vote.UNFIT or (vote is Vote.REFUSED and circuit.refuses_everything):
        return True
    return claim.is_probe and found.verdict is Verdict.RETRY and found.status is None


def _still_open(
    circuit: Circuit, one: Returned, found: Classification, situation: Situation, policy: RetryPolicy
) -> Circuit:
    now = situation.now
    if one.claim.is_probe:
        # Longer than a probe takes: another's Retry-After meanwhile, which stands.
        asked = circuit.wait(now) if circuit.wait(now) > situation.lease else 0.0
        delay = max(asked, policy.circuit_wait.delay(circuit.failures + 1, found.retry_after))
        reason = f"refuses everything: {found.detail}" if circuit.refuses_everything else found.detail
        return circuit.probe_failed(now, delay, reason)
    if found.retry_after is not None and found.retry_after > circuit.wait(now):
        return replace(circuit, retry_at=now + found.retry_after, reason=found.detail)
    return circuit


def _holds(telling: Sequence[Returned], situation: Situation, policy: RetryPolicy) -> dict[str, Hold]:
    holds, now = dict(situation.endpoint.holds), situation.now
    for one in telling:
        user, probes = one.claim.message.user_id, one.claim.probes_user
        hold = holds.get(user)
        found = one.attempt.classification if one.attempt else None
        if found is not None and found.verdict is Verdict.HOLD:
            failures = 1 if hold is None else hold.failures + (1 if probes else 0)
            if hold is None or probes or (found.retry_after or 0.0) > hold.until - now:
                delay = policy.hold_wait.delay(failures, found.retry_after)
                holds[user] = Hold(hold.since if hold else now, now + delay, failures, found.detail)
        elif hold is not None and probes:
            if found is not None and found.verdict in LET_IN:
                del holds[user]
            else:
                delay = 0.0 if found is None else policy.hold_wait.delay(hold.failures)
                holds[user] = Hold(hold.since, now + delay, hold.failures, hold.reason)
    return holds
