"""Deletes superseded runs after the retention; the last finished run of each media item stays.

A run is superseded by a later one of the same media item that is done. Its row is deleted with its boxes, so that
nobody reads it as a run that found nothing. Runs are read in pages and boxes deleted in batches, by key and with
pauses, so that transactions stay short. This module begins transactions.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import and_, delete, exists, select
from sqlalchemy.orm import aliased

from app.database import Database, Queries
from app.database.models import Detection, DetectionRun, RunState

log = structlog.get_logger()

DAY = 86_400.0
RETENTION_EVERY = 6 * 3600.0
PAGE = 500
BATCH = 5_000
"""Boxes deleted in one transaction, plus those of one frame: about ten milliseconds of a write lock."""
PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class _Page:
    superseded: list[int]
    last: int | None


class SupersededRuns:
    """The superseded runs that ended more than `days` days ago."""

    def __init__(self, database: Database, days: float, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._database = database
        self._days = days
        self._sleep = sleep

    def drop(self, is_stopping: Callable[[], bool] = lambda: False) -> int:
        """Delete them until none is left or `is_stopping()`; return how many were deleted."""
        dropped, page = 0, self._page(0)
        while page.last is not None and not is_stopping():
            for run_id in page.superseded:
                if is_stopping():
                    break
                self._delete(run_id)
                dropped += 1
            self._sleep(PAUSE_SECONDS)
            page = self._page(page.last)
        if dropped:
            log.info("superseded_runs_dropped", runs=dropped)
        return dropped

    def _page(self, after: int) -> _Page:
        later = aliased(DetectionRun)
        is_superseded = and_(
            DetectionRun.finished_at <= self._database.now - self._days * DAY,
            exists().where(
                later.media_id == DetectionRun.media_id, later.id > DetectionRun.id, later.state == RunState.DONE
            ),
        )
        runs = select(DetectionRun.id, is_superseded.label("superseded"))
        page = runs.where(DetectionRun.id > after).order_by(DetectionRun.id).limit(PAGE)
        rows = Queries(self._database).fetch(lambda session: session.execute(page).all())
        return _Page([row.id for row in rows if row.superseded], rows[-1].id if rows else None)

    def _delete(self, run_id: int) -> None:
        while not self._delete_batch(run_id):
            self._sleep(PAUSE_SECONDS)

    def _delete_batch(self, run_id: int) -> bool:
        """Delete up to BATCH boxes and the rest of their last frame, or the last boxes and the run; True after that."""
        boxes = Detection.run_id == run_id
        in_order = select(Detection.frame).where(boxes).order_by(Detection.frame, Detection.ordinal)
        with self._database.write_transaction() as session:
            last = session.scalar(in_order.offset(BATCH).limit(1))
            if last is None:
                session.execute(delete(Detection).where(boxes))
                session.execute(delete(DetectionRun).where(DetectionRun.id == run_id))
            else:
                session.execute(delete(Detection).where(boxes, Detection.frame <= last))
        return last is None
