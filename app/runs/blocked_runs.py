"""Runs that a fault of the house keeps: what they wait for, and their release once it is over.

A run that waits for its file costs one look at the file in each round, and no claim. Nothing here begins a transaction.
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
from app.runs.house_faults import OF_ALL, DetectionBreaker, FaultKind, file_fault
from app.runs.lifecycle import release_runs
from app.runs.statements import BLOCKED
from app.storage import open_stored

log = structlog.get_logger()

EVERY_SECONDS = 5.0
PAGE = 500


@dataclass(frozen=True, slots=True)
class BlockedRun:
    """A run that waits, and its file."""

    run_id: int
    kind: FaultKind
    path: Path
    size_bytes: int


def counts(session: Session) -> dict[FaultKind, int]:
    """How many runs wait for each kind of fault."""
    rows = session.execute(
        select(DetectionRun.waiting_kind, func.count()).where(BLOCKED).group_by(DetectionRun.waiting_kind)
    )
    found = {str(kind): count for kind, count in rows}
    return {kind: found.get(kind, 0) for kind in FaultKind}


def reason_for_all() -> ScalarSelect[str]:
    """As a scalar: what keeps all detection, where a run of any process met it; NULL where nothing does."""
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
    """Releases those of the whole database, in a process whose detectors may take them. `folder_reason` tells what is
    wrong with a media folder."""

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
        """Release what can go on, page by page. A database that is away is told of at /readyz, without this."""
        try:
            for kind in FaultKind:
                self._look_through(kind)
        except (DetectionsError, DBAPIError) as error:
            log.debug("blocked_runs_not_checked", reason=str(error))

    def _look_through(self, kind: FaultKind) -> None:
        if kind in OF_ALL and self._breaker.fault is not None:
            return
        page = self._queries.fetch(_page, kind, 0)
        while page and not self._stopping.is_set():
            ready = [run.run_id for run in page if self._can_go_on(run)]
            if ready:
                release_runs(self._database, ready)
            page = self._queries.fetch(_page, kind, page[-1].run_id)

    def _can_go_on(self, run: BlockedRun) -> bool:
        """A run that waits for another fault than before is released too: its next claim says for which."""
        if run.kind in OF_ALL:
            return True
        try:
            os.close(open_stored(run.path, run.size_bytes))
        except StorageFailed as error:
            return file_fault(run.path, error, self._folder_reason).kind != run.kind
        return self._folder_reason(run.path.parent) is None
