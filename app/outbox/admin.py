"""What a person may do to the outbox: retry, skip, prune, have it checked, and have a flush bring everything forward.

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
"""How long a statement about everything that waits or is parked may take: a person waits for it."""
PORTION_SECONDS = 30.0
"""How long a statement of a check may take."""
PRUNE_BATCH = 500

T = TypeVar("T")
OnProgress = Callable[[int, int], None]

NEW_HEAD: dict[str, Any] = {
    "attempts": 0,
    "failures": 0,
    "counted_attempts": 0,
    "refused_since": null(),
    "outcome_unknown": literal(False),
    "last_status": null(),
    "last_error": null(),
}
"""The columns of a stream that tell of its head's attempts, for a head of which there were none."""


class OutboxAdmin:
    """The use case of commands and of the administrators' pages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def retry(self, media_ids: Sequence[str] | None, *, reason: str | None = None) -> list[str]:
        """Put parked media items back to pending, as `retry_parked`."""
        with self._database.write_transaction(statement_seconds=ALL_SECONDS) as transaction:
            return retry_parked(transaction, self._database.now, media_ids, reason=reason)

    def skip(self, media_id: str) -> int:
        """Drop the head message of a parked media item, as `skip_head`."""
        with self._database.write_transaction() as transaction:
            return skip_head(transaction, self._database.now, media_id)

    def prune(self, *, older_than_days: float, sleep: Callable[[float], None] = time.sleep) -> int:
        """Delete delivered messages past their retention; returns how many.

        It pauses after each batch for as long as the batch took, so that uploads have the database at least half of
        the time.
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
        """Make one change of everything that waits, in a transaction of its own."""
        with self._database.write_transaction(statement_seconds=ALL_SECONDS) as transaction:
            return change(transaction)

    def find_damage(self, on_progress: OnProgress) -> list[Damage]:
        """What is damaged in SQLite's pages and indexes."""
        return list(find_damage(self._reading, on_progress))

    def find_broken_invariants(self, on_progress: OnProgress) -> list[dict[str, str]]:
        """The invariants that the stored rows break, as `app.outbox.invariants.walk`."""
        return walk(Queries(self._database, statement_seconds=PORTION_SECONDS).fetch, on_progress)

    def _reading(self) -> AbstractContextManager[ReadTransaction]:
        return self._database.read_transaction(statement_seconds=PORTION_SECONDS)


def retry_parked(
    session: WriteTransaction, now: ColumnElement[float], media_ids: Sequence[str] | None, *, reason: str | None = None
) -> list[str]:
    """Put parked media back to pending, all of them where `media_ids` is None; returns which were put back.

    With `reason`, only those whose park reason contains that text, whatever its case.
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
            waiting_since=case((more, now)),
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
    session.notify(Topic.MESSAGES)
    return int(seq)


_DELETE = delete(OutboxMessage).where(
    OutboxMessage.media_id == bindparam("media"), OutboxMessage.seq == bindparam("number")
)
"""One message, by its key: for a list of keys SQLite reads the whole table."""


def prune(session: WriteTransaction, now: ColumnElement[float], *, older_than_days: float, batch: int) -> int:
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
