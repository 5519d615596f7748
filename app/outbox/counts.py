"""How many wait, are parked and were delivered, for those who ask again and again: at a cost that does not grow.

Up to EXACT rows are counted whenever somebody asks. Beyond that the last count is told, and counted anew by a thread
when it is older than FRESH_SECONDS; whoever finds it older than STALE_SECONDS counts for itself. This module begins
transactions.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy import Row, Select
from sqlalchemy.orm import Session

from app.database.engine import Database

log = structlog.get_logger()

EXACT = 2000
FRESH_SECONDS = 2.0
STALE_SECONDS = 90.0
COUNTING_SECONDS = 60.0
"""How long a count may take in a thread of its own."""

Counting = Callable[[int | None], Select[*tuple[Any, ...]]]
"""Makes the statement that counts, at most so many rows; None: all. Its first column is the number of rows counted."""


class OutboxCounts:
    """What one process has counted. Safe to use from several threads."""

    def __init__(self, database: Database, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._monotonic = monotonic
        self._guard = threading.Lock()
        self._counted: dict[str, tuple[Row[*tuple[Any, ...]], float]] = {}
        self._under_way: set[str] = set()

    def fetch(self, session: Session, name: str, counting: Counting) -> Row[*tuple[Any, ...]]:
        """The row of a count; `name` is what it is kept under."""
        few = session.execute(counting(EXACT + 1)).one()
        if few[0] <= EXACT:
            return few
        row, counted_at = self._counted.get(name, (None, 0.0))
        age = self._monotonic() - counted_at
        if row is None or age > STALE_SECONDS:
            return self._keep(name, session.execute(counting(None)).one())
        if age > FRESH_SECONDS:
            self._count_anew(name, counting)
        return row

    def _keep(self, name: str, row: Row[*tuple[Any, ...]]) -> Row[*tuple[Any, ...]]:
        self._counted[name] = (row, self._monotonic())
        return row

    def _count_anew(self, name: str, counting: Counting) -> None:
        with self._guard:
            if name in self._under_way:
                return
            self._under_way.add(name)
        threading.Thread(target=self._count, args=(name, counting), name="outbox-count", daemon=True).start()

    def _count(self, name: str, counting: Counting) -> None:
        try:
            with self._database.reading(statement_seconds=COUNTING_SECONDS) as session:
                self._keep(name, session.execute(counting(None)).one())
        except Exception:
            log.exception("outbox_not_counted", what=name)
        finally:
            with self._guard:
                self._under_way.discard(name)
