"""Claims the next run under a lease. Nothing here begins or commits a transaction.

Users take turns: the next run is the oldest one of the user with the fewest runs under way, and among several such
users of the one whose last claim is longest ago. So no user waits behind another's hundred videos, and a single user
can use every detector.

The cost of a claim grows with the number of users who wait and not with the number of runs, because each user, the
user's oldest run and last turn take one index step each.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from sqlalchemy import (
    CTE,
    ColumnElement,
    Row,
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
"""A run is claimed, written as in the partial index."""


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run leased to this process. `media_status` is the status before the claim.

    `position` is where a video continues, with `boxes_done` boxes found so far; None if the run begins.
    """

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
    boxes_done: int = 0

    @classmethod
    def of(cls, run: DetectionRun | Row[Any], media: Media) -> Self:
        """Return the claim of a run's row, as it is after the claim, and its media item's row."""
        return cls(
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

    @property
    def fence(self) -> ColumnElement[bool]:
        """The condition that selects the run's row while this claim may write to it."""
        return and_(_R.id == self.run_id, RUN_LEASE.fence(self.epoch))


@dataclass(frozen=True, slots=True)
class Claimant:
    """The process that claims a run: its lease owner, its detector and the length of its leases in seconds."""

    owner: str
    detector: str
    lease_seconds: float


class Claims:
    """Runs the claim statements. `now` is the database's clock as an SQL expression."""

    def __init__(self, now: ColumnElement[float]) -> None:
        self._lease = _lease_statement(now)
        self._should_yield = {new_only: _newcomers(now, new_only=new_only) for new_only in (True, False)}

    def lease(self, session: WriteTransaction, claimant: Claimant) -> ClaimedRun | None:
        """Lease the next run; None if there is none, or if another process is claiming it."""
        run = session.scalars(
            self._lease,
            {"owner": claimant.owner, "name": claimant.detector, "lease": claimant.lease_seconds},
            execution_options={"synchronize_session": False},
        ).one_or_none()
        return None if run is None else ClaimedRun.of(run, session.get_one(Media, run.media_id))

    def should_yield(self, session: Session, user: str, *, had_its_turn: bool) -> bool:
        """Whether a run of this user is to yield, because another user waits who has no run under way.

        A waiting run that yielded itself counts only once this run `had_its_turn`.
        """
        return session.execute(self._should_yield[not had_its_turn], {"user": user}).first() is not None


def _lease_statement(now: ColumnElement[float]) -> Update:
    chosen = _next(now).cte("chosen")
    continues = and_(_R.state == RunState.QUEUED, _R.position.is_not(None), _R.detector == bindparam("name"))
    return (
        update(DetectionRun)
        .where(DetectionRun.id.in_(select(chosen.c.id)))
        .values(
            state=RunState.RUNNING,
            detector=bindparam("name"),
            **RUN_LEASE.claim(now),
            # The server of a run whose lease has expired died. That attempt is counted already.
            attempts=case((_R.state == RunState.QUEUED, _R.attempts + 1), else_=_R.attempts),
            claimed_at=now,
            started_at=case((continues, _R.started_at), else_=now),
            frames_done=case((continues, _R.frames_done), else_=0),
            boxes_done=case((continues, _R.boxes_done), else_=0),
            packets_skipped=case((continues, _R.packets_skipped), else_=0),
            results_epoch=case((continues, _R.results_epoch), else_=_R.lease_epoch + 1),
            position=case((continues, _R.position)),
        )
        .returning(DetectionRun)
    )


def _next(now: ColumnElement[float]) -> Select[int]:
    """Select the oldest claimable run of the user in turn; on PostgreSQL skip runs that others are claiming."""
    return (
        select(_R.id)
        .where(_R.user_id == _user_in_turn(now), claimable(now))
        .order_by(_R.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def _waiting(now: ColumnElement[float]) -> Subquery:
    """Select the users with runs that wait or are under way, each with the oldest claimable run or NULL."""
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
    """Select the users with runs under way, and how many they have."""
    held = select(_R.user_id, func.count().label("runs")).where(_RUNNING, RUN_LEASE.until > now)
    return held.group_by(_R.user_id).subquery("busy")


def _newcomers(now: ColumnElement[float], *, new_only: bool) -> Select[int]:
    """Select a waiting run of another user than `user` who has none under way; with `new_only`, one never yielded."""
    waiting, busy = _waiting(now), _busy(now)
    wanted = select(_R.id).join(waiting, waiting.c.oldest == _R.id)
    wanted = wanted.where(waiting.c.user_id != bindparam("user"), waiting.c.user_id.not_in(select(busy.c.user_id)))
    return (wanted.where(_R.position.is_(None)) if new_only else wanted).limit(1)


def _user_in_turn(now: ColumnElement[float]) -> ColumnElement[str]:
    waiting, busy = _waiting(now), _busy(now)
    # A claim dated in the future is from before the clock was set back, and would put its user behind all others.
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
    """Select the users with runs that wait or are under way, each found from the previous one; NULL at the end."""
    first = select(func.min(_R.user_id).label("user_id")).where(UNDER_WAY)
    users = first.cte("users", recursive=True)
    following = select(func.min(_R.user_id)).where(UNDER_WAY, _R.user_id > users.c.user_id).correlate(users)
    return users.union_all(select(following.scalar_subquery()).where(users.c.user_id.is_not(None)))
