"""What administrators do to the outbox: retry and skip parked messages, prune delivered ones, check invariants.

This module begins transactions.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    delete,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.orm import aliased

from app.database import Database, Queries, ReadTransaction, Topic, WriteTransaction
from app.database.integrity import Damage, find_damage
from app.database.models import OutboxMessage, OutboxStream
from app.errors import MediaNotFound, NotParked
from app.outbox.invariants import walk
from app.outbox.messages import Outcome

DAY = 86400.0
ALL_SECONDS = 600.0
"""Time limit of a statement that a person waits for and that changes every pending or parked stream."""

CHECK_SECONDS = 30.0
"""Time limit of one statement of a check."""

PRUNE_BATCH = 500
"""Messages deleted in one transaction."""

T = TypeVar("T")
OnProgress = Callable[[int, int], None]

NO_ATTEMPTS: dict[str, Any] = {
    "attempts": 0,
    "failures": 0,
    "counted_attempts": 0,
    "refused_since": null(),
    "outcome_unknown": literal(False),
    "last_status": null(),
    "last_error": null(),
}
"""The values that a stream's attempt columns have while its head message has not been sent."""


class OutboxAdmin:
    """The administrator's use cases, for the commands and for the API."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def retry(self, media_ids: Sequence[str] | None, *, reason: str | None = None) -> list[str]:
        """Return parked media items to pending; see `retry_parked`."""
        with self._database.write_transaction(statement_seconds=ALL_SECONDS) as transaction:
            return retry_parked(transaction, self._database.now, media_ids, reason=reason)

    def skip(self, media_id: str) -> int:
        """Drop the head message of a parked media item; see `skip_head`."""
        with self._database.write_transaction() as transaction:
            return skip_head(transaction, self._database.now, media_id)

    def prune(self, *, older_than_days: float, sleep: Callable[[float], None] = time.sleep) -> int:
        """Delete messages delivered more than `older_than_days` days ago; return how many were deleted.

        After each batch it sleeps for as long as the batch took, which leaves uploads at least half of the time.
        """
        total = 0
        while True:
            started = time.monotonic()
            with self._database.write_transaction() as transaction:
                count = prune(transaction, self._database.now, older_than_days=older_than_days, batch=PRUNE_BATCH)
            total += count
            if count < PRUNE_BATCH:
                return total
            sleep(time.monotonic() - started)

    def apply(self, change: Callable[[WriteTransaction], T]) -> T:
        """Run `change` in one write transaction whose statements may take ALL_SECONDS; return its result."""
        with self._database.write_transaction(statement_seconds=ALL_SECONDS) as transaction:
            return change(transaction)

    def find_damage(self, on_progress: OnProgress) -> list[Damage]:
        """Return the damage found in SQLite's pages and indexes."""
        return list(find_damage(self._open_session, on_progress))

    def find_broken_invariants(self, on_progress: OnProgress) -> list[dict[str, str]]:
        """Return the invariants that stored rows violate; see `app.outbox.invariants.walk`."""
        return walk(Queries(self._database, statement_seconds=CHECK_SECONDS).fetch, on_progress)

    def _open_session(self) -> AbstractContextManager[ReadTransaction]:
        return self._database.read_transaction(statement_seconds=CHECK_SECONDS)


def retry_parked(
    session: WriteTransaction, now: ColumnElement[float], media_ids: Sequence[str] | None, *, reason: str | None = None
) -> list[str]:
    """Return parked media items to pending and return their ids.

    `media_ids` limits the change to these items, `reason` to those whose park reason contains the text, in any case.
    """
    chosen: ColumnElement[bool] = OutboxStream.parked_at.is_not(None)
    if media_ids is not None:
        chosen = and_(chosen, OutboxStream.media_id.in_(media_ids))
    if reason is not None:
        chosen = and_(chosen, OutboxStream.park_reason.icontains(reason, autoescape=True))
    session.notify(Topic.MESSAGES)
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


def skip_head(session: WriteTransaction, now: ColumnElement[float], media_id: str) -> int:
    """Record the head message of a parked stream as skipped, unpark the stream and return the message's number.

    Raises NotParked if the media item is not parked and MediaNotFound if it has no stream.
    """
    more = OutboxStream.last_seq > OutboxStream.acked_seq + 1
    seq = session.scalar(
        update(OutboxStream)
        .where(OutboxStream.media_id == media_id, OutboxStream.parked_at.is_not(None))
        .values(
            acked_seq=OutboxStream.acked_seq + 1,
            due_at=case((more, now)),
            waiting_since=case((more, now)),
            parked_at=null(),
            park_reason=null(),
            **NO_ATTEMPTS,
        )
        .returning(OutboxStream.acked_seq)
        .execution_options(synchronize_session=False)
    )
    if seq is None:
        known = session.get(OutboxStream, media_id) is not None
        if not known:
            raise MediaNotFound(f"The outbox has no messages of media item {media_id!r}.")
        raise NotParked(f"Media item {media_id!r} is not parked, so there is nothing to skip.")
    session.execute(
        update(OutboxMessage)
        .where(OutboxMessage.media_id == media_id, OutboxMessage.seq == seq)
        .values(delivered_at=now, outcome=Outcome.SKIPPED)
        .execution_options(synchronize_session=False)
    )
    session.notify(Topic.MESSAGES)
    return int(seq)


_DELETE = delete(OutboxMessage).where(
    OutboxMessage.media_id == bindparam("media"), OutboxMessage.seq == bindparam("number")
)
"""Deletes one message by its key; with a list of keys SQLite would scan the table."""


def prune(session: WriteTransaction, now: ColumnElement[float], *, older_than_days: float, batch: int) -> int:
    """Delete up to `batch` messages delivered more than `older_than_days` days ago; return how many were deleted.

    A parked stream keeps its delivered messages, because they show a person what arrived before. Within a stream
    deletion follows the sequence numbers, even if the clock was set back between deliveries: a gap in the remaining
    numbers would look like a lost message.
    """
    cutoff = now - older_than_days * DAY
    before = aliased(OutboxMessage)
    first_to_stay = and_(
        before.media_id == OutboxMessage.media_id,
        before.seq < OutboxMessage.seq,
        before.delivered_at >= cutoff,
    )
    old = (
        select(OutboxMessage.media_id, OutboxMessage.seq)
        .join(OutboxStream, OutboxStream.media_id == OutboxMessage.media_id)
        .where(OutboxMessage.delivered_at < cutoff, OutboxStream.parked_at.is_(None))
        .where(~select(before.seq).where(first_to_stay).exists())
        .order_by(OutboxMessage.delivered_at, OutboxMessage.media_id, OutboxMessage.seq)
        .limit(batch)
    )
    keys = [{"media": row.media_id, "number": row.seq} for row in session.execute(old)]
    if keys:
        session.connection().execute(_DELETE, keys)
    return len(keys)
