"""Which run comes next, and its lease: the SQL of claims. Nothing here begins or commits a transaction.

Users take turns: next is the oldest run of the user who has the fewest under way, and of several such users the one
whose turn was longest ago. So nobody waits behind another's hundred videos, and a lone user has every detector.

The cost of a claim grows with the number of users who wait, and not with the number of runs, waiting or ended: the
users are found by one step of an index for each, and so are each user's oldest run and last turn.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    Subquery,
    Update,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.database import WriteTransaction
from app.database.models import DetectionRun, Media, RunState
from app.runs.statements import RUN, RUN_LEASE, UNDER_WAY, claimable

LEASE_SECONDS = 15.0
RUN_BOUNDS = (RUN_LEASE.bound(LEASE_SECONDS),)

_R = RUN.c
_RUNNING: ColumnElement[bool] = _R.state == literal_column(f"'{RunState.RUNNING}'")
"""In the words of the partial index of the runs that are being worked on."""


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run leased to this process, with all that is needed to do it. `media_status` is what it was before."""

    run_id: int
    media_id: str
    user_id: str
    media_status: int
    path: Path
    size_bytes: int
    media_type: Literal["Video", "Image"]
    confidence: float
    frame_interval: float
    epoch: int
    attempts: int
    request_id: str | None
    position: str | None = None
    """Where it goes on, with the frames and boxes that it has; None where it begins."""
    boxes_done: int = 0

    @property
    def fence(self) -> ColumnElement[bool]:
        """True of the run's row as long as this claim is the one that may write about it."""
        return and_(_R.id == self.run_id, RUN_LEASE.fence(self.epoch))


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who takes runs: the process, the detector that it has, and for how many seconds it leases them."""

    owner: str
    detector: str
    lease_seconds: float


class Claims:
    """`now` is the database's clock as an SQL expression. The statement is built once."""

    def __init__(self, now: ColumnElement[float]) -> None:
        self._lease = _lease_statement(now)
        self._should_yield = {new_only: _newcomers(now, new_only=new_only) for new_only in (True, False)}

    def lease(self, session: WriteTransaction, claimant: Claimant) -> ClaimedRun | None:
        """Lease the next run; None where there is none, or where another claims it right now."""
        run = session.scalars(
            self._lease,
            {"owner": claimant.owner, "name": claimant.detector, "lease": claimant.lease_seconds},
            execution_options={"synchronize_session": False},
        ).one_or_none()
        return None if run is None else _claimed(run, session.get_one(Media, run.media_id))

    def should_yield(self, session: Session, user: str, *, had_its_turn: bool) -> bool:
        """Whether a run of this user is to yield: somebody else waits who has nothing under way.

        Where what waits has yielded before, it waits until the run has had its turn.
        """
        return session.execute(self._should_yield[not had_its_turn], {"user": user}).first() is not None


def _lease_statement(now: ColumnElement[float]) -> Update:
    chosen = _next(now).cte("chosen")
    goes_on = and_(_R.state == RunState.QUEUED, _R.position.is_not(None), _R.detector == bindparam("name"))
    return (
        update(DetectionRun)
        .where(DetectionRun.id.in_(select(chosen.c.id)))
        .values(
            state=RunState.RUNNING,
            detector=bindparam("name"),
            **RUN_LEASE.claim(now),
            # A run that is leased still ended with its server: that try counts no second time, nor against the file.
            attempts=case((_R.state == RunState.QUEUED, _R.attempts + 1), else_=_R.attempts),
            claimed_at=now,
            started_at=case((goes_on, _R.started_at), else_=now),
            frames_done=case((goes_on, _R.frames_done), else_=0),
            boxes_done=case((goes_on, _R.boxes_done), else_=0),
            packets_skipped=case((goes_on, _R.packets_skipped), else_=0),
            results_epoch=case((goes_on, _R.results_epoch), else_=_R.lease_epoch + 1),
            position=case((goes_on, _R.position)),
        )
        .returning(DetectionRun)
    )


def _next(now: ColumnElement[float]) -> Select[int]:
    """The oldest claimable run of the user whose turn it is.

    On PostgreSQL a run that is being claimed right now is passed over for that user's next.
    """
    return (
        select(_R.id)
        .where(_R.user_id == _user_in_turn(now), claimable(now))
        .order_by(_R.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def _waiting(now: ColumnElement[float]) -> Subquery:
    """The users who have runs that wait or are under way, each with the oldest that can be claimed, if there is one."""
    users = _users_with_runs()
    oldest = (
        select(_R.id)
        .where(_R.user_id == users.c.user_id, claimable(now))
        .order_by(_R.id)
        .limit(1)
        .correlate(users)
        .scalar_subquery()
    )
    return select(users.c.user_id, oldest.label("oldest")).where(users.c.user_id.is_not(None)).subquery("waiting")


def _busy(now: ColumnElement[float]) -> Subquery:
    """The users who have runs under way, and how many."""
    held = select(_R.user_id, func.count().label("runs")).where(_RUNNING, RUN_LEASE.until > now)
    return held.group_by(_R.user_id).subquery("busy")


def _newcomers(now: ColumnElement[float], *, new_only: bool) -> Select[int]:
    """A run of somebody else than `user` who has nothing under way; with `new_only`, one that has not yielded."""
    waiting, busy = _waiting(now), _busy(now)
    wanted = select(_R.id).join(waiting, waiting.c.oldest == _R.id)
    wanted = wanted.where(waiting.c.user_id != bindparam("user"), waiting.c.user_id.not_in(select(busy.c.user_id)))
    return (wanted.where(_R.position.is_(None)) if new_only else wanted).limit(1)


def _user_in_turn(now: ColumnElement[float]) -> ColumnElement[str]:
    waiting, busy = _waiting(now), _busy(now)
    # A turn that lies ahead was dated before the clock was set back: it would keep its user behind all others.
    last_turn = (
        select(func.max(_R.claimed_at)).where(_R.user_id == waiting.c.user_id, _R.claimed_at <= now).correlate(waiting)
    )
    return (
        select(waiting.c.user_id)
        .outerjoin(busy, busy.c.user_id == waiting.c.user_id)
        .where(waiting.c.oldest.is_not(None))
        .order_by(func.coalesce(busy.c.runs, 0), func.coalesce(last_turn.scalar_subquery(), 0), waiting.c.oldest)
        .limit(1)
        .scalar_subquery()
    )


def _users_with_runs() -> CTE:
    """The users who have runs that wait or are under way, and NULL at the end: each found from the one before."""
    first = select(func.min(_R.user_id).label("user_id")).where(UNDER_WAY)
    users = first.cte("users", recursive=True)
    following = select(func.min(_R.user_id)).where(UNDER_WAY, _R.user_id > users.c.user_id).correlate(users)
    return users.union_all(select(following.scalar_subquery()).where(users.c.user_id.is_not(None)))


def _claimed(run: DetectionRun, media: Media) -> ClaimedRun:
    return ClaimedRun(
        run_id=run.id,
        media_id=run.media_id,
        user_id=run.user_id,
        media_status=media.media_status,
        path=Path(media.path),
        size_bytes=media.size_bytes,
        media_type=media.media_type,
        confidence=run.confidence,
        frame_interval=run.frame_interval,
        epoch=run.lease_epoch,
        attempts=run.attempts,
        request_id=run.request_id,
        position=run.position,
        boxes_done=run.boxes_done,
    )
