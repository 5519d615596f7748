"""Figures of runs; what only grows is counted in the transactions that do it: right wherever a run was worked on.

Nothing here begins or commits a transaction.
"""

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.database import WriteTransaction
from app.database.models import DetectionRun, RunState
from app.detection.statements import UNDER_WAY
from app.outbox import tally

FRAMES, SECONDS, SECONDS_SUM, LEASES_LOST = "frames", "run_seconds", "run_seconds_sum", "run_leases_lost"
BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, float("inf"))
"""Upper bounds, in seconds, of the time from a run's last start to its end."""


def count_frames(session: WriteTransaction, frames: int) -> None:
    """So many more frames were looked at, whatever becomes of their run."""
    tally.count(session, {FRAMES: float(frames)} if frames else {})


def count_end(session: WriteTransaction, state: RunState, seconds: float, frames: int = 0) -> None:
    """A run has ended in that state, so long after its last start, with so many frames that were not counted yet."""
    figures = dict(tally.in_buckets((SECONDS, state), (SECONDS_SUM, state), BUCKETS, [seconds]))
    tally.count(session, figures | ({FRAMES: float(frames)} if frames else {}))


def count_lost(session: WriteTransaction) -> None:
    """The lease of a run was lost: what its process found counts for nothing."""
    tally.count(session, {LEASES_LOST: 1.0})


def oldest_age(session: Session, now: ColumnElement[float]) -> float:
    """Seconds since the run was asked for that has waited longest; 0 where none waits."""
    queued = UNDER_WAY, DetectionRun.state == RunState.QUEUED
    return max(0.0, session.scalar(select(now - func.min(DetectionRun.created_at)).where(*queued)) or 0.0)


def under_way(session: Session) -> dict[str, int]:
    """How many runs there are in each state that has not ended."""
    rows = session.execute(select(DetectionRun.state, func.count()).where(UNDER_WAY).group_by(DetectionRun.state))
    return {str(state): count for state, count in rows}
