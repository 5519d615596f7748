"""`flask outbox verify`: the invariants, asked of the rows themselves. Each query finds what must not be there.

Nothing here begins or commits a transaction, and nothing is repaired: a broken invariant is a defect for a person.
"""

from sqlalchemy import Select, case, func, literal, or_, select
from sqlalchemy.orm import Session, aliased

from app.models import DetectionRun, Media, OutboxMessage, OutboxStream, RunState

SHOWN = 20
"""How many broken rows of each kind are named."""

_STREAM, _MESSAGE = OutboxStream, OutboxMessage
_ON_STREAM = _MESSAGE.media_id == _STREAM.media_id


def _unnumbered() -> Select[str, str]:
    """Waiting messages must be exactly acked+1 … last (delivered ones may have been pruned)."""
    waiting = func.count(case((_MESSAGE.delivered_at.is_(None), _MESSAGE.seq)))  # a stream without any has no seq
    lowest = func.min(case((_MESSAGE.delivered_at.is_(None), _MESSAGE.seq)))
    return (
        select(_STREAM.media_id, literal("the waiting messages are not the ones between acked_seq and last_seq"))
        .outerjoin(_MESSAGE, _ON_STREAM)
        .group_by(_STREAM.media_id, _STREAM.last_seq, _STREAM.acked_seq)
        .having(
            or_(
                waiting != _STREAM.last_seq - _STREAM.acked_seq,
                lowest <= _STREAM.acked_seq,
                func.max(_MESSAGE.seq) > _STREAM.last_seq,
            )
        )
    )


def _gap() -> Select[str, str]:
    """Pruning takes the first ones of a media, so what is left is without a gap."""
    return (
        select(_MESSAGE.media_id, literal("there is a gap in the numbers of the messages"))
        .group_by(_MESSAGE.media_id)
        .having(func.max(_MESSAGE.seq) - func.min(_MESSAGE.seq) + 1 != func.count())
    )


def _undelivered_below() -> Select[str, str]:
    return (
        select(_MESSAGE.media_id, literal("a message at or below acked_seq was never delivered"))
        .join(_STREAM, _ON_STREAM)
        .where(_MESSAGE.seq <= _STREAM.acked_seq, _MESSAGE.delivered_at.is_(None))
    )


def _delivered_above() -> Select[str, str]:
    return (
        select(_MESSAGE.media_id, literal("a message above acked_seq counts as delivered"))
        .join(_STREAM, _ON_STREAM)
        .where(_MESSAGE.seq > _STREAM.acked_seq, _MESSAGE.delivered_at.is_not(None))
    )


def _shared_key() -> Select[str, str]:
    return (
        select(func.min(_MESSAGE.media_id), literal("two messages share an idempotency key"))
        .group_by(_MESSAGE.idempotency_key)
        .having(func.count() > 1)
    )


def _status_disagrees() -> Select[str, str]:
    """The last message of a media carries the status that its row has."""
    newest = aliased(OutboxMessage)
    return (
        select(Media.id, literal("the media's status is not the one of its last message"))
        .join(_STREAM, _STREAM.media_id == Media.id)
        .join(newest, (newest.media_id == Media.id) & (newest.seq == _STREAM.last_seq))
        .where(newest.payload["mediaStatus"].as_integer() != Media.media_status)
    )


def _processing_without_run() -> Select[str, str]:
    active = (
        select(DetectionRun.id)
        .where(DetectionRun.media_id == Media.id, DetectionRun.state == RunState.RUNNING)
        .exists()
    )
    waiting_again = (
        select(DetectionRun.id).where(DetectionRun.media_id == Media.id, DetectionRun.state == RunState.QUEUED).exists()
    )
    return select(Media.id, literal("the media is AIProcessing but no run of it is under way")).where(
        Media.media_status == 2, ~active, ~waiting_again
    )


CHECKS = (
    _unnumbered,
    _gap,
    _undelivered_below,
    _delivered_above,
    _shared_key,
    _status_disagrees,
    _processing_without_run,
)


def broken_invariants(session: Session) -> list[dict[str, str]]:
    """Every broken invariant found, as {"mediaId", "problem"}, at most SHOWN of each kind."""
    return [
        {"mediaId": media_id, "problem": problem}
        for check in CHECKS
        for media_id, problem in session.execute(check().limit(SHOWN))
    ]
