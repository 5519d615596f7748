"""Applies transitions to their streams, under the fence of each claim's lease, and says which of them held.

A dispatcher that lost a lease changes nothing of that stream, and learns so here. Nothing here begins or commits a
transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.database import Topic, WriteTransaction
from app.outbox.decide import Action, Transition
from app.outbox.messages import Claim
from app.outbox.queue import OutboxQueue


@dataclass(slots=True)
class Applied:
    """What transitions changed: those that `held`, those that were `lost`, and the claims that go on.

    `latencies` are the seconds from each delivered message's commit to now.
    """

    held: list[Transition] = field(default_factory=list)
    lost: list[Transition] = field(default_factory=list)
    going_on: list[Claim] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


def apply_transitions(
    session: WriteTransaction, queue: OutboxQueue, transitions: Sequence[Transition], lease: float
) -> Applied:
    """Apply them all; a claim that goes on keeps its stream for `lease` seconds more."""
    applied = Applied()
    _deliver(session, queue, [one for one in transitions if one.action is Action.DELIVERED], lease, applied)
    others = (Action.RETRY, Action.PARK, Action.RELEASE)
    _reschedule(session, queue, [one for one in transitions if one.action in others], applied)
    applied.lost += [one for one in transitions if one.action is Action.LEASE_LOST]
    if any(one.action is Action.RELEASE for one in applied.held):
        session.notify(Topic.MESSAGES)
    _add_attempts(session, queue, applied.held)
    return applied


def _deliver(
    session: WriteTransaction, queue: OutboxQueue, delivered: Sequence[Transition], lease: float, applied: Applied
) -> None:
    if not delivered:
        return
    statements = queue.transition_statements(session)
    by_media = {one.claim.message.media_id: one for one in delivered}
    rows = [one.claim.as_row | {"goes_on": one.goes_on} for one in by_media.values()]
    moved = session.execute(statements.deliver, {"rows": rows, "lease": lease}).all()
    ended = {row.media_id: _ended(by_media[row.media_id]) for row in moved}
    now_ended = set()
    if ended:
        for row in session.execute(statements.end_messages, {"rows": list(ended.values())}):
            now_ended.add(row.media_id)
            applied.latencies.append(row.latency)
    for media_id, one in by_media.items():
        if media_id in now_ended:
            applied.held.append(one)
        elif media_id not in ended:
            applied.lost.append(one)
    applied.going_on += [
        by_media[row.media_id].claim for row in moved if by_media[row.media_id].goes_on and row.last_seq > row.acked_seq
    ]


def _ended(one: Transition) -> dict[str, Any]:
    outcome = one.attempt.classification.outcome if one.attempt else None
    return {"media_id": one.claim.message.media_id, "seq": one.claim.message.seq, "outcome": outcome}


def _reschedule(
    session: WriteTransaction, queue: OutboxQueue, transitions: Sequence[Transition], applied: Applied
) -> None:
    if not transitions:
        return
    by_media = {one.claim.message.media_id: one for one in transitions}
    rows = [_row(one) for one in by_media.values()]
    held = set(session.scalars(queue.transition_statements(session).reschedule, {"rows": rows}))
    for media_id, one in by_media.items():
        (applied.held if media_id in held else applied.lost).append(one)


def _row(one: Transition) -> dict[str, Any]:
    found = one.attempt.classification if one.attempt else None
    return one.claim.as_row | {
        "sent": 0 if found is None else 1,
        "delay": one.delay,
        "parked": one.action is Action.PARK,
        "failures": one.failures,
        "counted_attempts": one.counted_attempts,
        "refused": one.refused,
        "uncertain": found is not None and found.outcome_unknown,
        "last_status": found.status if found else None,
        "last_error": found.detail if found else None,
    }


def _add_attempts(session: WriteTransaction, queue: OutboxQueue, transitions: Sequence[Transition]) -> None:
    """Keep what was sent, for the person who asks."""
    rows = [
        {
            "media_id": one.claim.message.media_id,
            "seq": one.claim.message.seq,
            "at": one.attempt.at,
            "duration": one.attempt.duration,
            "verdict": one.attempt.classification.verdict,
            "status": one.attempt.classification.status,
            "detail": one.attempt.classification.detail,
            "excerpt": one.attempt.classification.excerpt,
        }
        for one in transitions
        if one.attempt is not None
    ]
    if rows:
        session.execute(queue.transition_statements(session).add_attempts, {"rows": rows})
