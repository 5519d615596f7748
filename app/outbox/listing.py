"""Lists messages: pages of one state, one media item's messages with all attempts, and deliveries per minute.

Each page reads an index from where the previous page ended. Nothing here begins or commits a transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, Select, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.database.models import OutboxAttempt, OutboxMessage, OutboxStream
from app.database.sql_functions import floor_to_int
from app.errors import MediaNotFound
from app.formats.cursor import Cursor

State = Literal["pending", "parked", "delivered"]
MINUTES = 60
STATES: tuple[State, ...] = ("pending", "parked", "delivered")

_DUE_OR_PARKED: dict[State, InstrumentedAttribute[float | None]] = {
    "pending": OutboxStream.due_at,
    "parked": OutboxStream.parked_at,
}


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Messages, each with its stream; `next_cursor` fetches the next page and is None on the last one."""

    items: Sequence[tuple[OutboxMessage, OutboxStream]]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Minute:
    """`delivered` counts the messages delivered or skipped in the minute that begins at `at`, seconds since 1970."""

    at: float
    delivered: int


def page(session: Session, *, state: State, limit: int, cursor: str | None) -> MessagePage:
    """Return messages of one state: pending by due time, parked by the time of parking, delivered newest first.

    A message that is sent between two pages changes its due time, so it may appear twice or not at all. Raises
    MalformedUpload for a cursor that no page of this state returned.
    """
    after = None if cursor is None else Cursor.parse(state, cursor)
    query = _delivered(after) if state == "delivered" else _waiting(_DUE_OR_PARKED[state], after, limit)
    rows = [(message, stream) for message, stream in session.execute(query.limit(limit + 1))]
    shown = rows[:limit]
    return MessagePage(shown, str(_cursor(state, *shown[-1])) if len(rows) > limit else None)


def first_page(session: Session, *, state: State | None, limit: int) -> list[tuple[OutboxMessage, OutboxStream]]:
    """Return the first messages of one state, or of all: pending, then parked, then delivered ones."""
    found: list[tuple[OutboxMessage, OutboxStream]] = []
    for one in (state,) if state else STATES:
        if len(found) < limit:
            found += page(session, state=one, limit=limit - len(found), cursor=None).items
    return found


def throughput(session: Session, now: ColumnElement[float]) -> list[Minute]:
    """Return the last MINUTES minutes of the database's clock, the current one included, oldest first."""
    minute = floor_to_int(OutboxMessage.delivered_at / 60.0)
    last = int(session.scalars(select(now)).one() // 60)
    first = last - MINUTES + 1
    rows = session.execute(
        select(minute.label("minute"), func.count().label("delivered"))
        .where(OutboxMessage.delivered_at >= first * 60.0)
        .group_by(minute)
    )
    counted = {row.minute: row.delivered for row in rows}
    return [Minute(number * 60.0, counted.get(number, 0)) for number in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class StreamHistory:
    """One stream with its messages, each with its attempts."""

    stream: OutboxStream
    messages: list[tuple[OutboxMessage, list[OutboxAttempt]]]


def history(session: Session, media_id: str, *, newest: int | None = None) -> StreamHistory:
    """Return one media item's stream with all messages and attempts that are kept, or the `newest` of each.

    Raises MediaNotFound if the media item has no stream.
    """
    stream = session.get(OutboxStream, media_id)
    if stream is None:
        raise MediaNotFound(f"The outbox has no messages of media item {media_id!r}.")
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
        attempts.setdefault(attempt.seq, []).append(attempt)  # its message may have been added since
    return StreamHistory(stream, [(row, attempts[row.seq]) for row in reversed(rows)])


def _delivered(after: Cursor | None) -> Select[OutboxMessage, OutboxStream]:
    column = OutboxMessage.delivered_at
    query = select(OutboxMessage, OutboxStream).join(OutboxStream, OutboxStream.media_id == OutboxMessage.media_id)
    query = query.where(column.is_not(None)).order_by(column.desc(), OutboxMessage.media_id, OutboxMessage.seq)
    if after is None:
        return query
    later = tuple_(OutboxMessage.media_id, OutboxMessage.seq) > (after.media_id, after.seq)
    return query.where(column <= after.at, or_(column < after.at, later))


def _waiting(
    column: InstrumentedAttribute[float | None], after: Cursor | None, limit: int
) -> Select[OutboxMessage, OutboxStream]:
    # Without this subquery the planner may start from all messages.
    heads = select(OutboxStream).where(column.is_not(None)).order_by(column, OutboxStream.media_id).limit(limit + 2)
    if after is not None:
        heads = heads.where(column >= after.at, or_(column > after.at, OutboxStream.media_id >= after.media_id))
    stream = aliased(OutboxStream, heads.subquery())
    query = (
        select(OutboxMessage, stream)
        .join(stream, stream.media_id == OutboxMessage.media_id)
        .where(OutboxMessage.seq > stream.acked_seq)
        .order_by(getattr(stream, column.key), stream.media_id, OutboxMessage.seq)
    )
    if after is not None:
        query = query.where(or_(stream.media_id != after.media_id, OutboxMessage.seq > after.seq))
    return query


def _cursor(state: State, message: OutboxMessage, stream: OutboxStream) -> Cursor:
    row, column = (message, "delivered_at") if state == "delivered" else (stream, _DUE_OR_PARKED[state].key)
    return Cursor(state, getattr(row, column), message.media_id, message.seq)
