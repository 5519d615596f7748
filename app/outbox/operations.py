"""What a person may ask of the outbox, and do to it: status, list, show, retry, skip, prune.

Nothing here begins or commits a transaction; every function is handed a session. Lists of messages are
`app.outbox.listing`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Subquery,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.database.engine import News, announce
from app.database.models import OutboxAttempt, OutboxMessage, OutboxStream
from app.errors import MediaNotFound, NotParked
from app.outbox.counts import Counting, OutboxCounts
from app.outbox.messages import Outcome

State = Literal["pending", "parked", "delivered"]
HOUR = 3600.0
DAY = 86400.0

NEW_HEAD: dict[str, Any] = {
    "attempts": 0,
    "failures": 0,
    "counted_attempts": 0,
    "refused_since": null(),
    "uncertain": literal(False),
    "last_status": null(),
    "last_error": null(),
}
"""The columns of a stream that tell of its head's attempts, for a head of which there were none."""


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """`pending` counts messages, `active` the media they are of, `parked` media; the age is in seconds."""

    pending: int
    active: int
    parked: int
    oldest_age: float | None
    delivered_last_hour: int


def status(session: Session, now: ColumnElement[float], counts: OutboxCounts | None = None) -> OutboxStatus:
    """How the outbox stands, from its waiting and parked streams and the last hour's messages.

    With `counts` it costs the same however many these are; without, everything is counted now.
    """

    def counted(name: str, counting: Counting) -> Row[*tuple[Any, ...]]:
        return counts.fetch(session, name, counting) if counts else session.execute(counting(None)).one()

    active, waiting, since = counted("waiting", _waiting)
    (parked,) = counted("parked", _parked)
    (delivered,) = counted("delivered", partial(_delivered_since, now - HOUR))
    # Never below zero: the clock may have been set back since.
    oldest_age = None if since is None else max(0.0, clock(session, now) - since)
    return OutboxStatus(int(waiting), active, parked, oldest_age, delivered)


def _waiting(limit: int | None) -> Select[int, int, float | None]:
    stream = OutboxStream
    pending = (stream.last_seq - stream.acked_seq).label("pending")
    some = _some(select(pending, stream.head_since).where(stream.due_at.is_not(None)), stream.due_at, limit)
    return select(func.count(), func.coalesce(func.sum(some.c.pending), 0), func.min(some.c.head_since)).select_from(
        some
    )


def _parked(limit: int | None) -> Select[int]:
    parked_at = OutboxStream.parked_at
    return select(func.count()).select_from(_some(select(parked_at).where(parked_at.is_not(None)), parked_at, limit))


def _delivered_since(moment: ColumnElement[float], limit: int | None) -> Select[int]:
    delivered_at = OutboxMessage.delivered_at
    return select(func.count()).select_from(
        _some(select(delivered_at).where(delivered_at > moment), delivered_at, limit)
    )


def _some(
    rows: Select[*tuple[Any, ...]], order: ColumnElement[Any] | InstrumentedAttribute[Any], limit: int | None
) -> Subquery:
    """At most so many of the rows, found by the index on `order`; all of them without a limit."""
    return (rows if limit is None else rows.order_by(order).limit(limit)).subquery()


def clock(session: Session, now: ColumnElement[float]) -> float:
    """The database's time, in seconds since 1970."""
    return session.scalars(select(now)).one()


@dataclass(frozen=True, slots=True)
class StreamHistory:
    """One media's stream with all its messages, each with every attempt."""

    stream: OutboxStream
    messages: list[tuple[OutboxMessage, list[OutboxAttempt]]]


def history(session: Session, media_id: str, *, newest: int | None = None) -> StreamHistory:
    """Everything kept of one media's messages, or of its `newest` messages the newest so many attempts.

    Raises MediaNotFound where it never had one.
    """
    stream = session.get(OutboxStream, media_id)
    if stream is None:
        raise MediaNotFound(f"No message was ever written for a media {media_id!r}.")
    rows = session.scalars(
        select(OutboxMessage).where(OutboxMessage.media_id == media_id).order_by(OutboxMessage.seq.desc()).limit(newest)
    ).all()
    attempts: dict[int, list[OutboxAttempt]] = {row.seq: [] for row in reversed(rows)}
    of_these = OutboxAttempt.seq >= min(attempts, default=0)
    for attempt in reversed(
        session.scalars(
            select(OutboxAttempt)
            .where(OutboxAttempt.media_id == media_id, of_these)
            .order_by(OutboxAttempt.seq.desc(), OutboxAttempt.id.desc())
            .limit(newest)
        ).all()
    ):
        attempts.setdefault(attempt.seq, []).append(attempt)  # of a message that is new since, too
    return StreamHistory(stream, [(row, attempts[row.seq]) for row in reversed(rows)])


def retry_parked(
    session: Session, now: ColumnElement[float], media_ids: Sequence[str] | None, *, reason: str | None = None
) -> list[str]:
    """Put parked media back to pending, all of them where `media_ids` is None; returns which were put back.

    With `reason`, only those whose park reason contains that text, whatever its case.
    """
    chosen: ColumnElement[bool] = OutboxStream.parked_at.is_not(None)
    if media_ids is not None:
        chosen = and_(chosen, OutboxStream.media_id.in_(media_ids))
    if reason is not None:
        chosen = and_(chosen, OutboxStream.park_reason.icontains(reason, autoescape=True))
    announce(session.connection(), News.MESSAGES)
    return list(
        session.scalars(
            update(OutboxStream)
            .where(chosen)
            .values(
                due_at=now,
                parked_at=null(),
                park_reason=null(),
                attempts=0,
                failures=0,
                counted_attempts=0,
                refused_since=null(),
            )
            .returning(OutboxStream.media_id)
            .execution_options(synchronize_session=False)
        )
    )


def skip_head(session: Session, now: ColumnElement[float], media_id: str) -> int:
    """Drop the head message of a parked media, recorded as skipped, and go on with the next; returns its number.

    Raises NotParked where that media is not parked, MediaNotFound where it never had a message.
    """
    more = OutboxStream.last_seq > OutboxStream.acked_seq + 1
    seq = session.scalar(
        update(OutboxStream)
        .where(OutboxStream.media_id == media_id, OutboxStream.parked_at.is_not(None))
        .values(
            acked_seq=OutboxStream.acked_seq + 1,
            due_at=case((more, now)),
            head_since=case((more, now)),
            parked_at=null(),
            park_reason=null(),
            **NEW_HEAD,
        )
        .returning(OutboxStream.acked_seq)
        .execution_options(synchronize_session=False)
    )
    if seq is None:
        known = session.get(OutboxStream, media_id) is not None
        trouble = NotParked if known else MediaNotFound
        raise trouble(f"Media {media_id!r} is not parked, so there is nothing to skip.")
    session.execute(
        update(OutboxMessage)
        .where(OutboxMessage.media_id == media_id, OutboxMessage.seq == seq)
        .values(delivered_at=now, outcome=Outcome.SKIPPED)
        .execution_options(synchronize_session=False)
    )
    announce(session.connection(), News.MESSAGES)
    return int(seq)


_DELETE = delete(OutboxMessage).where(
    OutboxMessage.media_id == bindparam("media"), OutboxMessage.seq == bindparam("number")
)
"""One message, by its key: for a list of keys SQLite reads the whole table."""


def prune(session: Session, now: ColumnElement[float], *, older_than_days: float, batch: int) -> int:
    """Delete one batch of delivered messages past retention; returns how many, 0 once none are left.

    Messages behind which something is parked stay: they tell a person what had arrived before. Of one media the first
    go first, whatever the clock did when they were delivered: a gap in what is left would tell of a loss.
    """
    kept_after = now - older_than_days * DAY
    before = aliased(OutboxMessage)
    first_to_stay = and_(
        before.media_id == OutboxMessage.media_id,
        before.seq < OutboxMessage.seq,
        before.delivered_at >= kept_after,
    )
    old = (
        select(OutboxMessage.media_id, OutboxMessage.seq)
        .join(OutboxStream, OutboxStream.media_id == OutboxMessage.media_id)
        .where(OutboxMessage.delivered_at < kept_after, OutboxStream.parked_at.is_(None))
        .where(~select(before.seq).where(first_to_stay).exists())
        .order_by(OutboxMessage.delivered_at, OutboxMessage.media_id, OutboxMessage.seq)
        .limit(batch)
    )
    victims = [{"media": row.media_id, "number": row.seq} for row in session.execute(old)]
    if victims:
        session.connection().execute(_DELETE, victims)
    return len(victims)
