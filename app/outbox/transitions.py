"""Applies transitions to their streams, each fenced by the epoch of its claim.

A dispatcher that lost a lease changes nothing in that stream and gets the transition back as lost. Nothing here begins
or commits a transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.database import Topic, WriteTransaction
from app.outbox.decide import Action, Transition
from app.outbox.messages import Claim
from app.outbox.queue import OutboxQueue


@dataclass(slots=True)
class AppliedTransitions:
    """Which transitions were applied and which were lost, and the claims that continue with the next message.

    `latencies` are the seconds from each delivered message's creation to now.
    """

    applied: list[Transition] = field(default_factory=list)
    lost: list[Transition] = field(default_factory=list)
    continuing: list[Claim] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


def apply_transitions(
    session: WriteTransaction, queue: OutboxQueue, transitions: Sequence[Transition], lease: float
) -> AppliedTransitions:
    """Apply transitions; a claim that continues keeps its stream for `lease` more seconds."""
    result = AppliedTransitions()
    _deliver(
        session,
        queue,
        [transition for transition in transitions if transition.action is Action.DELIVERED],
        lease,
        result,
    )
    others = (Action.RETRY, Action.PARK, Action.RELEASE)
    _reschedule(session, queue, [transition for transition in transitions if transition.action in others], result)
    result.lost += [transition for transition in transitions if transition.action is Action.LEASE_LOST]
    if any(transition.action is Action.RELEASE for transition in result.applied):
        session.notify(Topic.MESSAGES)
    _add_attempts(session, queue, result.applied)
    return result


def _deliver(
    session: WriteTransaction,
    queue: OutboxQueue,
    delivered: Sequence[Transition],
    lease: float,
    result: AppliedTransitions,
) -> None:
    if not delivered:
        return
    statements = queue.transition_statements(session)
    by_media = {transition.claim.message.media_id: transition for transition in delivered}
    rows = [transition.claim.as_row | {"continues": transition.continues} for transition in by_media.values()]
    moved = session.core.execute(statements.deliver, {"rows": rows, "lease": lease}).all()
    ended = {row.media_id: _ended(by_media[row.media_id]) for row in moved}
    now_ended = set()
    if ended:
        for row in session.core.execute(statements.end_messages, {"rows": list(ended.values())}):
            now_ended.add(row.media_id)
            result.latencies.append(row.latency)
    for media_id, transition in by_media.items():
        if media_id in now_ended:
            result.applied.append(transition)
        elif media_id not in ended:
            result.lost.append(transition)
    result.continuing += [
        by_media[row.media_id].claim
        for row in moved
        if by_media[row.media_id].continues and row.last_seq > row.acked_seq
    ]


def _ended(transition: Transition) -> dict[str, Any]:
    outcome = transition.attempt.classification.outcome if transition.attempt else None
    return {"media_id": transition.claim.message.media_id, "seq": transition.claim.message.seq, "outcome": outcome}


def _reschedule(
    session: WriteTransaction, queue: OutboxQueue, transitions: Sequence[Transition], result: AppliedTransitions
) -> None:
    if not transitions:
        return
    by_media = {transition.claim.message.media_id: transition for transition in transitions}
    rows = [_row(transition) for transition in by_media.values()]
    held = set(session.core.scalars(queue.transition_statements(session).reschedule, {"rows": rows}))
    for media_id, transition in by_media.items():
        (result.applied if media_id in held else result.lost).append(transition)


def _row(transition: Transition) -> dict[str, Any]:
    found = transition.attempt.classification if transition.attempt else None
    return transition.claim.as_row | {
        "sent": 0 if found is None else 1,
        "delay": transition.delay,
        "parked": transition.action is Action.PARK,
        "failures": transition.failures,
        "counted_attempts": transition.counted_attempts,
        "refused": transition.refused,
        "outcome_unknown": found is not None and found.outcome_unknown,
        "last_status": found.status if found else None,
        "last_error": found.detail if found else None,
    }


def _add_attempts(session: WriteTransaction, queue: OutboxQueue, transitions: Sequence[Transition]) -> None:
    """Store the attempts, so that people can read what was sent and answered."""
    rows = [
        {
            "media_id": transition.claim.message.media_id,
            "seq": transition.claim.message.seq,
            "at": transition.attempt.at,
            "duration": transition.attempt.duration,
            "verdict": transition.attempt.classification.verdict,
            "status": transition.attempt.classification.status,
            "detail": transition.attempt.classification.detail,
            "excerpt": transition.attempt.classification.excerpt,
        }
        for transition in transitions
        if transition.attempt is not None
    ]
    if rows:
        session.core.execute(queue.transition_statements(session).add_attempts, {"rows": rows})
