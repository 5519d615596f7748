"""Parked media items, without waiting for the ten minutes that parking takes."""

from contextlib import closing

from sqlalchemy import update

from app.database import Database
from app.database.models import OutboxStream
from app.outbox.decide import CONCLUDE_AFTER_SECONDS, REFUSED_ATTEMPTS
from tests.eventually import eventually

_ENOUGH_SECONDS = 20.0


def refused_for_long(database_url: str, media_id: str) -> None:
    """Set a refused stream as if it had been refused for as long as possible, so that its next refusal parks it."""
    with closing(Database(database_url)) as database:
        eventually(lambda: _make_old(database, media_id), f"{media_id} to be refused", seconds=_ENOUGH_SECONDS)


def _make_old(database: Database, media_id: str) -> bool:
    with database.write_transaction() as session:
        changed = session.execute(
            update(OutboxStream)
            .where(
                OutboxStream.media_id == media_id,
                OutboxStream.counted_attempts > 0,
                OutboxStream.lease_owner.is_(None),
                OutboxStream.due_at.is_not(None),
            )
            .values(
                counted_attempts=REFUSED_ATTEMPTS - 1,
                refused_since=database.now - CONCLUDE_AFTER_SECONDS,
                due_at=database.now,
            )
            .returning(OutboxStream.media_id)
        )
        return changed.first() is not None
