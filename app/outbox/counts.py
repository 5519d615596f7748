"""Counts of pending, parked and delivered messages for frequent callers, at a cost independent of the backlog.

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
"""Time limit of a count in a background thread."""

CountStatement = Callable[[int | None], Select[*tuple[Any, ...]]]
"""Builds a statement that counts up to a limit, or all rows for None; its first column is the number of rows."""


class OutboxCounts:
    """The cached counts of one process. Thread-safe."""

    def __init__(self, database: Database, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._queries = Queries(database, statement_seconds=COUNTING_SECONDS)
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._counted: dict[str, tuple[Row[*tuple[Any, ...]], float]] = {}
        self._under_way: set[str] = set()

    def fetch(self, session: Session, name: str, counting: CountStatement) -> Row[*tuple[Any, ...]]:
        """Return the row of a count, cached under `name` if it counts more than EXACT_LIMIT rows."""
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
            self._store(name, self._queries.fetch(_count_all, counting))
        except Exception:
            log.exception("outbox_count_failed", count=name)
        finally:
            with self._guard:
                self._under_way.discard(name)


def _count_all(session: Session, counting: CountStatement) -> Row[*tuple[Any, ...]]:
    return session.execute(counting(None)).one()


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """The state of the outbox.

    `pending` and `delivered_last_hour` count messages, `active` and `parked` media items. `oldest_age` is how many
    seconds the oldest pending message has waited.
    """

    pending: int
    active: int
    parked: int
    oldest_age: float | None
    delivered_last_hour: int


def outbox_status(session: Session, now: ColumnElement[float], counts: OutboxCounts | None = None) -> OutboxStatus:
    """Return the state of the outbox, from the cached `counts` if given, otherwise counted now."""

    def counted(name: str, counting: CountStatement) -> Row[*tuple[Any, ...]]:
        return counts.fetch(session, name, counting) if counts else session.execute(counting(None)).one()

    active, waiting, since = counted("waiting", _waiting)
    (parked,) = counted("parked", _parked)
    (delivered,) = counted("delivered", partial(_delivered_since, now - HOUR))
    # The clock may have been set back since the message was added.
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
    """Return the rows as a subquery, at most `limit` of them in the order of an index on `order`."""
    return (rows if limit is None else rows.order_by(order).limit(limit)).subquery()
