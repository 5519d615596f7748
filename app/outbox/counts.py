"""How many wait, are parked and were delivered, for those who ask again and again: at a cost that does not grow.

Up to EXACT_LIMIT rows are counted at each call. Beyond that a call returns the last count; a thread counts anew when it
is older than FRESH_SECONDS, and the caller itself when it is older than STALE_SECONDS.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Row, Select, Subquery, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.database import Database, Queries
from app.database.models import OutboxMessage, OutboxStream

log = structlog.get_logger()

EXACT_LIMIT = 2000
FRESH_SECONDS = 2.0
STALE_SECONDS = 90.0
HOUR = 3600.0
COUNTING_SECONDS = 60.0
"""How long a count may take in a thread of its own."""

CountStatement = Callable[[int | None], Select[*tuple[Any, ...]]]
"""Makes the statement that counts, at most so many rows; None: all. Its first column is the number of rows counted."""


class OutboxCounts:
    """What one process has counted. Safe to use from several threads."""

    def __init__(self, database: Database, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._queries = Queries(database, statement_seconds=COUNTING_SECONDS)
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._counted: dict[str, tuple[Row[*tuple[Any, ...]], float]] = {}
        self._under_way: set[str] = set()

    def fetch(self, session: Session, name: str, counting: CountStatement) -> Row[*tuple[Any, ...]]:
        """The row of a count; `name` is what it is kept under."""
        few = session.execute(counting(EXACT_LIMIT + 1)).one()
        if few[0] <= EXACT_LIMIT:
            return few
        row, counted_at = self._counted.get(name, (None, 0.0))
        age = self._monotonic() - counted_at
        if row is None or age > STALE_SECONDS:
            return self._store(name, session.execute(counting(None)).one())
        if age > FRESH_SECONDS:
            self._count_anew(name, counting)
        return row

    def _store(self, name: str, row: Row[*tuple[Any, ...]]) -> Row[*tuple[Any, ...]]:
        self._counted[name] = (row, self._monotonic())
        return row

    def _count_anew(self, name: str, counting: CountStatement) -> None:
        with self._guard:
            if name in self._under_way:
                return
            self._under_way.add(name)
        threading.Thread(target=self._count, args=(name, counting), name="outbox-count", daemon=True).start()

    def _count(self, name: str, counting: CountStatement) -> None:
        try:
            self._store(name, self._queries.fetch(_all, counting))
        except Exception:
            log.exception("outbox_not_counted", what=name)
        finally:
            with self._guard:
                self._under_way.discard(name)


def _all(session: Session, counting: CountStatement) -> Row[*tuple[Any, ...]]:
    return session.execute(counting(None)).one()


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """`pending` counts messages, `active` the media they are of, `parked` media; the age is in seconds."""

    pending: int
    active: int
    parked: int
    oldest_age: float | None
    delivered_last_hour: int


def outbox_status(session: Session, now: ColumnElement[float], counts: OutboxCounts | None = None) -> OutboxStatus:
    """How the outbox stands, from its waiting and parked streams and the last hour's messages.

    With `counts` it costs the same however many these are; without, everything is counted now.
    """

    def counted(name: str, counting: CountStatement) -> Row[*tuple[Any, ...]]:
        return counts.fetch(session, name, counting) if counts else session.execute(counting(None)).one()

    active, waiting, since = counted("waiting", _waiting)
    (parked,) = counted("parked", _parked)
    (delivered,) = counted("delivered", partial(_delivered_since, now - HOUR))
    # Never below zero: the clock may have been set back since.
    oldest_age = None if since is None else max(0.0, session.scalars(select(now)).one() - since)
    return OutboxStatus(int(waiting), active, parked, oldest_age, delivered)


def _waiting(limit: int | None) -> Select[int, int, float | None]:
    stream = OutboxStream
    pending = (stream.last_seq - stream.acked_seq).label("pending")
    some = _limited(select(pending, stream.waiting_since).where(stream.due_at.is_not(None)), stream.due_at, limit)
    return select(func.count(), func.coalesce(func.sum(some.c.pending), 0), func.min(some.c.waiting_since)).select_from(
        some
    )


def _parked(limit: int | None) -> Select[int]:
    parked_at = OutboxStream.parked_at
    return select(func.count()).select_from(_limited(select(parked_at).where(parked_at.is_not(None)), parked_at, limit))


def _delivered_since(moment: ColumnElement[float], limit: int | None) -> Select[int]:
    delivered_at = OutboxMessage.delivered_at
    return select(func.count()).select_from(
        _limited(select(delivered_at).where(delivered_at > moment), delivered_at, limit)
    )


def _limited(
    rows: Select[*tuple[Any, ...]], order: ColumnElement[Any] | InstrumentedAttribute[Any], limit: int | None
) -> Subquery:
    """At most so many of the rows, found by the index on `order`; all of them without a limit."""
    return (rows if limit is None else rows.order_by(order).limit(limit)).subquery()
