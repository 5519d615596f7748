"""Limits how many runs may wait. Nothing here begins a transaction.

Counting a hundred thousand waiting runs takes milliseconds, so a count is used for COUNT_SERVES_SECONDS, with the runs
that this process accepts meanwhile added. Before a refusal the runs are counted anew.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database import Database, Queries
from app.errors import Unavailable
from app.process.fair_share import has_capacity
from app.runs.statements import RUN, UNDER_WAY

COUNT_SERVES_SECONDS = 1.0
RETRY_AFTER = 30.0


class QueueLimit:
    """The limit of `capacity` runs that wait or are under way. Thread-safe."""

    def __init__(self, database: Database, capacity: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._queries = Queries(database)
        self._capacity = capacity
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._held: Counter[str] = Counter()
        self._counted_at = -COUNT_SERVES_SECONDS

    def ensure(self, user: str) -> None:
        """Raise Unavailable if `capacity` runs wait and this user has an equal share of them."""
        with self._guard:
            is_fresh = self._monotonic() - self._counted_at >= COUNT_SERVES_SECONDS
            if is_fresh:
                self._count()
            if not has_capacity(self._capacity, self._held, user):
                if not is_fresh:
                    self._count()
                if not has_capacity(self._capacity, self._held, user):
                    raise Unavailable(
                        f"{self._held.total()} runs wait for a detector, {self._held[user]} of them yours, and "
                        f"MAX_WAITING_RUNS is {self._capacity}; try again later.",
                        RETRY_AFTER,
                    )
            self._held[user] += 1

    def _count(self) -> None:
        self._held = self._queries.fetch(_runs_of_users)
        self._counted_at = self._monotonic()


def _runs_of_users(session: Session) -> Counter[str]:
    rows = session.execute(select(RUN.c.user_id, func.count().label("runs")).where(UNDER_WAY).group_by(RUN.c.user_id))
    return Counter({row.user_id: row.runs for row in rows})
