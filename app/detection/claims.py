"""Which run comes next, and its lease: the SQL of claims. Nothing here begins or commits a transaction.

Users take turns: next is the oldest run of the user who has the fewest under way, and of several such users the one
whose turn was longest ago. So nobody waits behind another's hundred videos, and a lone user has every detector. Runs
that wait are few (at most some thousand are let in), so all of them are looked at; those that have ended are not.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import ColumnElement, Select, and_, func, select, update
from sqlalchemy.orm import Session

from app.detection.statements import UNDER_WAY, claimable
from app.models import DetectionRun, Media, RunState

_LATEST = 2000
"""Runs, counted from the newest, among which a user's last turn is looked for: more than may wait at once."""


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run leased to this process, with all that is needed to do it. `media_status` is what it was before."""

    run_id: int
    media_id: str
    media_status: int
    path: Path
    media_type: Literal["Video", "Image"]
    confidence: float
    frame_interval: float
    epoch: int
    tries: int
    request_id: str | None

    @property
    def fence(self) -> ColumnElement[bool]:
        """True of the run's row as long as this claim is the one that may write about it."""
        return and_(
            DetectionRun.id == self.run_id,
            DetectionRun.lease_epoch == self.epoch,
            DetectionRun.state == RunState.RUNNING,
        )


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who takes runs: the process, the detector that it has, and for how many seconds it leases them."""

    owner: str
    detector: str
    lease_seconds: float


def lease(session: Session, now: ColumnElement[float], claimant: Claimant) -> ClaimedRun | None:
    """Lease the next run; None where there is none, or where another claims it right now."""
    chosen = _next(now).cte("chosen")
    run = session.scalars(
        update(DetectionRun)
        .where(DetectionRun.id.in_(select(chosen.c.id)))
        .values(
            state=RunState.RUNNING,
            detector=claimant.detector,
            lease_epoch=DetectionRun.lease_epoch + 1,
            lease_owner=claimant.owner,
            lease_until=now + claimant.lease_seconds,
            tries=DetectionRun.tries + 1,
            started_at=now,
            frames_done=0,
            packets_skipped=0,
        )
        .returning(DetectionRun)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return None if run is None else _claimed(run, session.get_one(Media, run.media_id))


def _next(now: ColumnElement[float]) -> Select[int]:
    user = DetectionRun.user_id
    held = and_(UNDER_WAY, DetectionRun.state == RunState.RUNNING, DetectionRun.lease_until > now)
    busy = select(user, func.count().label("runs")).where(held).group_by(user).subquery()
    latest = select(user, DetectionRun.started_at).order_by(DetectionRun.id.desc()).limit(_LATEST).subquery()
    served = select(latest.c.user_id, func.max(latest.c.started_at).label("at")).group_by(latest.c.user_id).subquery()
    return (
        select(DetectionRun.id)
        .outerjoin(busy, busy.c.user_id == user)
        .outerjoin(served, served.c.user_id == user)
        .where(claimable(now))
        .order_by(func.coalesce(busy.c.runs, 0), func.coalesce(served.c.at, 0), DetectionRun.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=DetectionRun)
    )


def _claimed(run: DetectionRun, media: Media) -> ClaimedRun:
    return ClaimedRun(
        run_id=run.id,
        media_id=run.media_id,
        media_status=media.media_status,
        path=Path(media.path),
        media_type=media.media_type,
        confidence=run.confidence,
        frame_interval=run.frame_interval,
        epoch=run.lease_epoch,
        tries=run.tries,
        request_id=run.request_id,
    )
