"""What answers mean for the endpoint: its circuit breaker, and the holds on its users. Pure, as `app.outbox.decide`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.outbox.circuit import Circuit, EndpointState, Hold, InFlight, Sample, Signal, Window
from app.outbox.messages import Claim, Classification, SendResult, Verdict
from app.outbox.retry_policy import RetryPolicy

RETRY_AFTER_LIMIT_SECONDS = 86_400.0
"""A refusal that says when to return is no last word, unless that has gone on for a day."""

AUTHORIZED_VERDICTS = frozenset(Verdict) - {Verdict.HOLD, Verdict.UNFIT, Verdict.RETRY}
"""Answers that the endpoint gives only to users whom it lets in."""

Verdicts = Mapping[tuple[str, int], Classification | None]
"""What each claim's answer means by now, by the claim's key."""


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """What is known beside the answers.

    `now` is the database's clock, `lease` how long a probe may be under way, `in_flight` what has not come back yet,
    `lost` the media items whose leases are lost, `last_delivery` when any message was last delivered.
    """

    now: float
    endpoint: EndpointState
    window: Window = field(default_factory=Window)
    in_flight: Sequence[InFlight] = ()
    lost: Collection[str] = ()
    last_delivery: float | None = None
    lease: float = 30.0
    stopping: bool = False

    def seconds_since(self, moment: float | None) -> float:
        """How long ago that was; 0 where it was not, or where the clock was set back meanwhile."""
        return 0.0 if moment is None else max(0.0, self.now - moment)


def is_deferred(found: Classification, waited: float) -> bool:
    """Whether a refusal means "later": it says when to return, and that has not gone on for too long."""
    return found.retry_after is not None and waited < RETRY_AFTER_LIMIT_SECONDS


def decide_endpoint(
    returned: Sequence[SendResult], verdicts: Verdicts, context: DecisionContext, policy: RetryPolicy
) -> tuple[EndpointState, Window]:
    """The endpoint's condition and the window of samples after these answers.

    A claim whose lease was lost says nothing: another dispatcher has gone on from there.
    """
    counted = [one for one in returned if one.claim.message.media_id not in context.lost]
    circuit, window = _circuit(counted, verdicts, context, policy)
    return EndpointState(circuit, _holds(counted, context, policy)), window


def _in_flight(one: SendResult) -> InFlight:
    return InFlight(one.claim.message.media_id, one.claim.message.user_id)


def _signal(found: Classification, waited: float) -> Signal | None:
    """None where the answer says nothing of the endpoint: of a held user, of unknown outcome, not the last word."""
    if found.verdict is Verdict.UNFIT:
        return Signal.UNFIT
    if found.verdict is Verdict.REFUSED and not is_deferred(found, waited):
        return Signal.REFUSED
    return Signal.FIT if found.verdict in (Verdict.DELIVERED, Verdict.PARK) else None


def _circuit(
    counted: Sequence[SendResult], verdicts: Verdicts, context: DecisionContext, policy: RetryPolicy
) -> tuple[Circuit, Window]:
    circuit, window, now = context.endpoint.circuit, context.window, context.now
    in_flight = [*context.in_flight, *(_in_flight(one) for one in counted)]
    for one in counted:
        found = verdicts[one.claim.key]
        if found is None or one.attempt is None:
            circuit = circuit.probe_given_up(now) if one.claim.is_probe and not circuit.is_closed else circuit
            continue
        signal = _signal(found, context.seconds_since(one.claim.refused_since))
        if signal is not None:
            sample = Sample(signal, one.claim.message.media_id, one.claim.message.user_id, now)
            window = window.with_samples([sample] * one.attempt.sends)
        if circuit.is_closed:
            circuit = _opened(circuit, window, in_flight, found, now, policy)
        elif _fails_probe(one.claim, found, signal, circuit):
            circuit = _still_open(circuit, one, found, context, policy)
        elif one.claim.is_probe or signal is Signal.FIT:
            circuit, window = Circuit(), Window()
    return circuit, window


def _opened(
    circuit: Circuit,
    window: Window,
    in_flight: Sequence[InFlight],
    found: Classification,
    now: float,
    policy: RetryPolicy,
) -> Circuit:
    match window.opening_signal(in_flight, now):
        case Signal.UNFIT:
            return circuit.opened(now, policy.circuit_wait.delay(1, found.retry_after), found.detail)
        case Signal.REFUSED:
            reason = f"refuses everything: {found.detail}"
            return circuit.opened(now, policy.circuit_wait.delay(1), reason, refusing_since=window.refusing_since)
        case _:
            return circuit


def _fails_probe(claim: Claim, found: Classification, signal: Signal | None, circuit: Circuit) -> bool:
    """An answer that leaves the circuit open: of its probe, or of a message that was under way when it opened."""
    if signal is Signal.UNFIT or (signal is Signal.REFUSED and circuit.refuses_everything):
        return True
    return claim.is_probe and found.verdict is Verdict.RETRY and found.status is None


def _still_open(
    circuit: Circuit, one: SendResult, found: Classification, context: DecisionContext, policy: RetryPolicy
) -> Circuit:
    now = context.now
    if one.claim.is_probe:
        # Longer than a probe takes: another's Retry-After meanwhile, which stands.
        asked = circuit.wait(now) if circuit.wait(now) > context.lease else 0.0
        delay = max(asked, policy.circuit_wait.delay(circuit.failures + 1, found.retry_after))
        reason = f"refuses everything: {found.detail}" if circuit.refuses_everything else found.detail
        return circuit.probe_failed(now, delay, reason)
    if found.retry_after is not None and found.retry_after > circuit.wait(now):
        return replace(circuit, retry_at=now + found.retry_after, reason=found.detail)
    return circuit


def _holds(counted: Sequence[SendResult], context: DecisionContext, policy: RetryPolicy) -> dict[str, Hold]:
    holds, now = dict(context.endpoint.holds), context.now
    for one in counted:
        user, probes = one.claim.message.user_id, one.claim.probes_user
        hold = holds.get(user)
        found = one.attempt.classification if one.attempt else None
        if found is not None and found.verdict is Verdict.HOLD:
            failures = 1 if hold is None else hold.failures + (1 if probes else 0)
            if hold is None or probes or (found.retry_after or 0.0) > hold.until - now:
                delay = policy.hold_wait.delay(failures, found.retry_after)
                holds[user] = Hold(hold.since if hold else now, now + delay, failures, found.detail)
        elif hold is not None and probes:
            if found is not None and found.verdict in AUTHORIZED_VERDICTS:
                del holds[user]
            else:
                delay = 0.0 if found is None else policy.hold_wait.delay(hold.failures)
                holds[user] = Hold(hold.since, now + delay, hold.failures, hold.reason)
    return holds
