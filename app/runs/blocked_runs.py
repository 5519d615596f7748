"""Runs blocked by house faults: counts them, and releases them once their fault is over.

A blocked run costs one open of its file in each round and is not claimed. Nothing here begins a transaction.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.database import Database, Queries
from app.database.models import DetectionRun, Media
from app.errors import DetectionsError, StorageFailed
from app.process.background import BackgroundWork
from app.runs.detection_breaker import DetectionBreaker
from app.runs.house_faults import OF_ALL, FaultKind, file_fault
from app.runs.lifecycle import release_runs
from app.runs.statements import BLOCKED
from app.storage import open_stored

log = structlog.get_logger()

EVERY_SECONDS = 5.0
PAGE = 500


@dataclass(frozen=True, slots=True)
class BlockedRun:
    """A blocked run with its stored file."""

    run_id: int
    kind: FaultKind
    path: Path
    size_bytes: int


def counts(session: Session) -> dict[FaultKind, int]:
    """Return how many runs each kind of fault blocks."""
    rows = session.execute(
        select(DetectionRun.waiting_kind, func.count()).where(BLOCKED).group_by(DetectionRun.waiting_kind)
    )
    found = {str(kind): count for kind, count in rows}
    return {kind: found.get(kind, 0) for kind in FaultKind}


def reason_for_all() -> ScalarSelect[str]:
    """Return a scalar subquery of the reason why all detection is blocked, as met by any process; NULL if none is."""
    run = DetectionRun.__table__.alias("blocked")
    return (
        select(run.c.waiting_for)
        .where(run.c.waiting_kind.is_not(None), run.c.waiting_kind.in_(OF_ALL))
        .limit(1)
        .scalar_subquery()
    )


def _page(session: Session, kind: FaultKind, after: int) -> list[BlockedRun]:
    rows = session.execute(
        select(DetectionRun.id, Media.path, Media.size_bytes)
        .join(Media, Media.id == DetectionRun.media_id)
        .where(BLOCKED, DetectionRun.waiting_kind == kind, DetectionRun.id > after)
        .order_by(DetectionRun.id)
        .limit(PAGE)
    )
    return [BlockedRun(row.id, kind, Path(row.path), row.size_bytes) for row in rows]


class BlockedRuns(BackgroundWork):
    """Releases the blocked runs of the whole database whose fault is over.

    `breaker` is that of this process's detectors. `folder_reason(folder)` returns why a media folder is unusable, or
    None.
    """

    def __init__(
        self,
        database: Database,
        breaker: DetectionBreaker,
        folder_reason: Callable[[Path], str | None],
        *,
        every: float = EVERY_SECONDS,
    ) -> None:
        super().__init__("blocked-runs", pause=every)
        self._database = database
        self._queries = Queries(database)
        self._breaker = breaker
        self._folder_reason = folder_reason

    def work(self) -> None:
        """Release runs whose fault is over, page by page. /readyz reports an unreachable database."""
        try:
            for kind in FaultKind:
                self._release(kind)
        except (DetectionsError, DBAPIError) as error:
            log.debug("blocked_runs_not_checked", reason=str(error))

    def _release(self, kind: FaultKind) -> None:
        if kind in OF_ALL and self._breaker.fault is not None:
            return
        page = self._queries.fetch(_page, kind, 0)
        while page and not self._stopping.is_set():
            ready = [run.run_id for run in page if self._can_go_on(run)]
            if ready:
                release_runs(self._database, ready)
            page = self._queries.fetch(_page, kind, page[-1].run_id)

    def _can_go_on(self, run: BlockedRun) -> bool:
        """Whether the run's fault is over or has changed; after a change its next claim records the new fault."""
        if run.kind in OF_ALL:
            return True
        try:
            os.close(open_stored(run.path, run.size_bytes))
        except StorageFailed as error:
            return file_fault(run.path, error, self._folder_reason).kind != run.kind
        return self._folder_reason(run.path.parent) is None
