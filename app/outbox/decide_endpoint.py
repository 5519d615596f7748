"""Decides the endpoint's new state, its circuit breaker and its holds, from the results of attempts. Pure functions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.outbox.circuit import Circuit, EndpointState, Hold, InFlight, Sample, Signal, Window
from app.outbox.messages import Claim, Classification, SendResult, Verdict
from app.outbox.retry_policy import RetryPolicy

RETRY_AFTER_LIMIT_SECONDS = 86_400.0
"""How long refusals with a Retry-After are retried before they count like refusals without one."""

AUTHORIZED_VERDICTS = frozenset(Verdict) - {Verdict.HOLD, Verdict.UNFIT, Verdict.RETRY}
"""Verdicts on answers that show that the endpoint accepts the user; they end a hold."""

Verdicts = Mapping[tuple[str, int], Classification | None]
"""The classification of each claim's answer, by the claim's key; None if nothing was sent."""


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """What a decision depends on besides the results.

    `now` is the database's clock; `in_flight` are the messages without a result; `lost` are the media items whose
    leases were lost; `last_delivery` is when any message was last delivered; `lease` is the longest duration of a
    probe, in seconds; `stopping` says that the dispatcher claims no more.
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
        """Return the seconds since `moment`; 0 for None, and if the clock was set back meanwhile."""
        return 0.0 if moment is None else max(0.0, self.now - moment)


def is_deferred(found: Classification, waited: float) -> bool:
    """Whether an answer asks to return later, and the answers have asked so for less than RETRY_AFTER_LIMIT_SECONDS."""
    return found.retry_after is not None and waited < RETRY_AFTER_LIMIT_SECONDS


def decide_endpoint(
    results: Sequence[SendResult], verdicts: Verdicts, context: DecisionContext, policy: RetryPolicy
) -> tuple[EndpointState, Window]:
    """Return the endpoint's state and the window after these results.

    A claim whose lease was lost does not count, because another dispatcher may have claimed its stream.
    """
    counted = [result for result in results if result.claim.message.media_id not in context.lost]
    circuit, window = _circuit(counted, verdicts, context, policy)
    return EndpointState(circuit, _holds(counted, context, policy)), window


def _in_flight(result: SendResult) -> InFlight:
    return InFlight(result.claim.message.media_id, result.claim.message.user_id)


def _signal(found: Classification, waited: float) -> Signal | None:
    """Return what an answer says about the endpoint; None for holds, retries and inconclusive answers."""
    if found.verdict is Verdict.UNFIT:
        return Signal.UNFIT
    if found.verdict is Verdict.REFUSED and not is_deferred(found, waited):
        return Signal.REFUSED
    return Signal.FIT if found.verdict in (Verdict.DELIVERED, Verdict.PARK) else None


def _circuit(
    counted: Sequence[SendResult], verdicts: Verdicts, context: DecisionContext, policy: RetryPolicy
) -> tuple[Circuit, Window]:
    circuit, window, now = context.endpoint.circuit, context.window, context.now
    in_flight = [*context.in_flight, *(_in_flight(result) for result in counted)]
    for result in counted:
        found = verdicts[result.claim.key]
        if found is None or result.attempt is None:
            circuit = circuit.probe_unsent(now) if result.claim.is_probe and not circuit.is_closed else circuit
            continue
        signal = _signal(found, context.seconds_since(result.claim.refused_since))
        if signal is not None:
            sample = Sample(signal, result.claim.message.media_id, result.claim.message.user_id, now)
            window = window.with_samples([sample] * result.attempt.sends)
        if circuit.is_closed:
            if signal in (Signal.UNFIT, Signal.REFUSED):  # no other response opens it
                circuit = _opened(circuit, window, in_flight, found, now, policy)
        elif _fails_probe(result.claim, found, signal, circuit):
            circuit = _still_open(circuit, result, found, context, policy)
        elif result.claim.is_probe or signal is Signal.FIT:
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
    """Whether an answer keeps the circuit open: a probe's, or that of a message in flight when the circuit opened."""
    if signal is Signal.UNFIT or (signal is Signal.REFUSED and circuit.refuses_everything):
        return True
    return claim.is_probe and found.verdict is Verdict.RETRY and found.status is None


def _still_open(
    circuit: Circuit, result: SendResult, found: Classification, context: DecisionContext, policy: RetryPolicy
) -> Circuit:
    now = context.now
    if result.claim.is_probe:
        # A wait longer than a probe's lease comes from a Retry-After of another message, and stays in force.
        asked = circuit.wait(now) if circuit.wait(now) > context.lease else 0.0
        delay = max(asked, policy.circuit_wait.delay(circuit.failures + 1, found.retry_after))
        reason = f"refuses everything: {found.detail}" if circuit.refuses_everything else found.detail
        return circuit.probe_failed(now, delay, reason)
    if found.retry_after is not None and found.retry_after > circuit.wait(now):
        return replace(circuit, retry_at=now + found.retry_after, reason=found.detail)
    return circuit


def _holds(counted: Sequence[SendResult], context: DecisionContext, policy: RetryPolicy) -> dict[str, Hold]:
    holds, now = dict(context.endpoint.holds), context.now
    for result in counted:
        user, probes = result.claim.message.user_id, result.claim.probes_user
        hold = holds.get(user)
        found = result.attempt.classification if result.attempt else None
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
