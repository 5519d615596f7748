"""Lists of messages: page by page, of one media item with every attempt, and how many were delivered each minute.

Every page walks an index from where the page before ended. Nothing here begins or commits a transaction.
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
    """Messages with the heads of their streams; `next_cursor` asks for the page after this one, None at the end."""

    items: Sequence[tuple[OutboxMessage, OutboxStream]]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Minute:
    """`at` is the minute's beginning, in seconds since 1970; `delivered` the messages that stopped waiting in it."""

    at: float
    delivered: int


def page(session: Session, *, state: State, limit: int, cursor: str | None) -> MessagePage:
    """Messages of one state, in the order they are due or were parked, delivered ones newest first.

    What is tried meanwhile gets another place among the pending ones, so it may come twice or not at all. Raises
    MalformedUpload for a cursor that no page of this state gave.
    """
    after = None if cursor is None else Cursor.parse(state, cursor)
    query = _delivered(after) if state == "delivered" else _waiting(_DUE_OR_PARKED[state], after, limit)
    rows = [(message, stream) for message, stream in session.execute(query.limit(limit + 1))]
    shown = rows[:limit]
    return MessagePage(shown, str(_cursor(state, *shown[-1])) if len(rows) > limit else None)


def first_page(session: Session, *, state: State | None, limit: int) -> list[tuple[OutboxMessage, OutboxStream]]:
    """The first messages of one state; of every state where none is given: those that wait, then parked ones, then
    delivered ones."""
    found: list[tuple[OutboxMessage, OutboxStream]] = []
    for one in (state,) if state else STATES:
        if len(found) < limit:
            found += page(session, state=one, limit=limit - len(found), cursor=None).items
    return found


def throughput(session: Session, now: ColumnElement[float]) -> list[Minute]:
    """The last MINUTES minutes of the clock, the one under way included, oldest first."""
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
    # The streams are chosen first: joined freely, a database may begin with all messages that ever were.
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
