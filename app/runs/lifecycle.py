"""Detection runs as rows: asked for, claimed under a lease, reported on, ended; each change of status with its message.

A run's life: it is queued, in the transaction that records its media where that is new; claimed, under a lease that its
process renews while it works and with every batch of frames that it records; done or failed at the end. A picture that
an idle detector has begun with is claimed in the transaction that queues it, unless others wait. A run that yields, or
whose process is told to stop, waits with the position from which its next claim goes on; it counts as no try. One whose
process dies is left to whoever comes once the lease has run out, and begins anew, which counts as no further try. A run
of which MAX_TRIES detectors have died while their server lived is failed, with the reason; one that a person ends is
failed as well, "cancelled by" that person. One that a fault of the house keeps (`app.runs.house_faults`) is put off: it
waits, unclaimed, until it is released.

A run belongs to the process whose lease it carries. Every write about it is fenced by the lease's epoch, so a process
that lost its run (frozen, cut off) changes nothing. This module begins transactions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.database import Database, Queries, Topic, WriteTransaction, counters
from app.database.lease import FIRST_EPOCH
from app.database.models import Detection, DetectionRun, Media, MediaStatus, RunFailure, RunState
from app.detection.results import FrameResult
from app.errors import AlreadyProcessing, Forbidden, HouseFault, NotProcessing
from app.media.status import change_status
from app.outbox.queue import OutboxQueue
from app.runs.claims import LEASE_SECONDS, Claimant, ClaimedRun, Claims
from app.runs.queue_room import QueueRoom
from app.runs.statements import (
    FIRST_TRY,
    NOT_PUT_OFF,
    PUT_OFF,
    RUN_LEASE,
    UNDER_WAY,
    RunStatements,
    add_results,
    boxes_of,
)

MAX_TRIES = 2
MAX_WAITING = 100_000
"""Runs that may wait or be under way before a user who has an equal share of them is refused."""


_NOTHING_DONE: dict[str, Any] = {"frames_done": 0, "boxes_done": 0, "packets_skipped": 0, "position": None}


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run and for whom: thresholds 0..1, interval between sampled frames in seconds."""

    user_id: str
    confidence: float
    frame_interval: float
    request_id: str | None = None


class Runs:
    """The use case. `detector` is the name under which results are kept."""

    def __init__(
        self,
        database: Database,
        queue: OutboxQueue,
        detector: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._database = database
        self._queue = queue
        self._queries = Queries(database)
        self._statements = RunStatements(database.now)
        self.lease_seconds = lease_seconds
        self._renewal = RUN_LEASE.renew(database.now, lease_seconds)
        self._claims = Claims(database.now)
        self._room = QueueRoom(database, max_waiting)
        self.detector = detector

    def add(self, transaction: WriteTransaction, media_id: str, wanted: RunRequest) -> int:
        """Queue a run in the caller's transaction; IntegrityError where one is under way. Returns the run's id."""
        added = transaction.core.execute(self._statements.queue, self._asked_for(media_id, wanted))
        transaction.notify(Topic.RUNS)
        return int(added.scalar_one())

    def add_begun(
        self, transaction: WriteTransaction, media: Media, wanted: RunRequest, owner: str
    ) -> tuple[int, ClaimedRun | None]:
        """Add a new media's run, which `owner` has begun, in the caller's transaction that creates the media.

        Leased and reported, unless any other run waits: then it is queued, because it may be that one's turn. Returns
        the run's id too.
        """
        if transaction.core.scalar(self._statements.any_claimable) is not None:
            return self.add(transaction, media.id, wanted), None
        lease = {"owner": owner, "lease": self.lease_seconds}
        added = transaction.core.execute(self._statements.begin, self._asked_for(media.id, wanted) | lease)
        claimed = ClaimedRun(
            run_id=int(added.scalar_one()),
            media_id=media.id,
            user_id=wanted.user_id,
            media_status=MediaStatus.NEW,
            path=Path(media.path),
            size_bytes=media.size_bytes,
            media_type=media.media_type,
            confidence=wanted.confidence,
            frame_interval=wanted.frame_interval,
            epoch=FIRST_EPOCH,
            tries=FIRST_TRY,
            request_id=wanted.request_id,
        )
        self._report(transaction, claimed, MediaStatus.AI_PROCESSING)
        return claimed.run_id, claimed

    def _asked_for(self, media_id: str, wanted: RunRequest) -> dict[str, Any]:
        return {"media_id": media_id, "detector": self.detector, **asdict(wanted)}

    def ensure_room(self, user: str) -> None:
        """Raise Unavailable where too many runs wait already, this user's among them; to be asked before a body is
        read."""
        self._room.ensure(user)

    def start_new(
        self,
        media_id: str,
        wanted: RunRequest,
        in_transaction: Callable[[WriteTransaction], None] = lambda _transaction: None,
    ) -> int:
        """Queue a new run of a known media, in a transaction to which `in_transaction` adds; raises AlreadyProcessing
        where one is under way."""
        try:
            with self._database.write_transaction() as transaction:
                in_transaction(transaction)
                return self.add(transaction, media_id, wanted)
        except IntegrityError as error:
            raise AlreadyProcessing(f"A run of media {media_id} is under way; wait for it to end.") from error

    def find_or_start(self, media_id: str, wanted: RunRequest) -> int:
        """The run under way, or the last one that this detector finished, or else a new one."""
        while True:
            found = self._usable(media_id, wanted)
            if found is not None:
                return found
            try:
                return self.start_new(media_id, wanted)
            except AlreadyProcessing:
                continue  # another request was faster: its run is ours too

    def claim(self, owner: str) -> ClaimedRun | None:
        """Take a run that waits or whose process died, fairly between users; None where there is none."""
        if not self._anything_to_claim():
            return None
        with self._database.write_transaction() as session:
            claimed = self._claims.lease(session, Claimant(owner, self.detector, self.lease_seconds))
            if claimed is not None:
                if claimed.media_status != MediaStatus.AI_PROCESSING:
                    self._report(session, claimed, MediaStatus.AI_PROCESSING)
                if claimed.position is None:
                    _forget_results(session, claimed)
            return claimed

    def is_waited_for(self, claimed: ClaimedRun, *, had_its_turn: bool) -> bool:
        """Whether the run is to yield: somebody else waits who has nothing under way.

        A run that has yielded itself waits until this one has had its turn.
        """
        return self._queries.fetch(self._claims.is_waited_for, claimed.user_id, had_its_turn=had_its_turn)

    def cancel(self, media_id: str, by: str, *, user: str | None) -> None:
        """End the run under way of a media item: it fails as "cancelled by" whom `by` names, and is reported.

        `user` is whose runs may be ended, None for everybody's. Raises NotProcessing where no run is under way,
        Forbidden where it is another user's.
        """
        with self._database.write_transaction() as session:
            run = session.scalar(
                select(DetectionRun).where(DetectionRun.media_id == media_id, UNDER_WAY).with_for_update()
            )
            if run is None:
                raise NotProcessing(f"No run of media {media_id} is under way.")
            if user is not None and run.user_id != user:
                raise Forbidden(f"The run of media {media_id} is another user's; an administrator may end it too.")
            media = session.get_one(Media, media_id)
            if media.media_status != MediaStatus.AI_PROCESSING:
                self._change_status(session, media_id, MediaStatus.AI_PROCESSING, run.request_id)
            fence = and_(DetectionRun.id == run.id, UNDER_WAY)
            seconds = self._fail(session, fence, RunFailure.CANCELLED, f"cancelled by {by}")
            self._change_status(session, media_id, MediaStatus.ERROR, run.request_id)
            counters.add(session, counters.of_ended_run(RunState.FAILED, seconds or 0.0))

    def renew(self, claimed: ClaimedRun) -> bool:
        """Lengthen the lease; False if it was lost."""
        with self._database.write_transaction() as session:
            return self._update(session, claimed, self._renewal)

    def record(
        self, claimed: ClaimedRun, results: Sequence[FrameResult], total: int | None, *, skipped: int = 0
    ) -> bool:
        """Keep what was found on some more frames, and renew the lease; False if it was lost.

        `skipped` is how many packets were corrupt, from the beginning on.
        """
        with self._database.write_transaction() as session:
            kept = self._keep(session, claimed, results, frames_total=total, packets_skipped=skipped, **self._renewal)
            if kept:
                counters.add(session, counters.of_frames(len(results)))
            return kept

    def finish(
        self, claimed: ClaimedRun, results: Sequence[FrameResult], *, skipped: int = 0, warnings: Sequence[str] = ()
    ) -> bool:
        """The run is done, with these last frames, and its media AIProcessed; False if the lease was lost.

        `warnings` say what is missing of a damaged picture.
        """
        with self._database.write_transaction() as session:
            fence = {"run": claimed.run_id, "epoch": claimed.epoch}
            done = {
                "frames": len(results),
                "boxes": boxes_of(results),
                "skipped": skipped,
                "warnings": list(warnings) or None,
            }
            ended = session.core.execute(self._statements.finish, fence | done).first()
            if ended is None:
                _count_lost(session, claimed)
                return False
            add_results(session, claimed.run_id, results)
            self._report(session, claimed, MediaStatus.AI_PROCESSED)
            ended_run = counters.of_ended_run(RunState.DONE, ended[0])
            counters.add(session, {**ended_run, **counters.of_frames(len(results))})
            return True

    def fail(self, claimed: ClaimedRun, failure: RunFailure, reason: str, *, skipped: int = 0) -> bool:
        """The run has failed for good and its media is at Error; False if the lease was lost."""
        with self._database.write_transaction() as session:
            return self._end_failed(session, claimed, failure, reason, packets_skipped=skipped)

    def pause(
        self, claimed: ClaimedRun, results: Sequence[FrameResult], position: str | None, *, skipped: int = 0
    ) -> bool:
        """Let the run wait again, with these last frames and the position from which it is to go on; it counts as no
        try. Without a position it begins anew. False if the lease was lost."""
        if position is None:
            return self.hand_back(claimed, counted=False)
        waits = {"state": RunState.QUEUED, "tries": DetectionRun.tries - 1, "position": position, **RUN_LEASE.release()}
        with self._database.write_transaction() as session:
            session.notify(Topic.RUNS)
            paused = self._keep(session, claimed, results, packets_skipped=skipped, **waits)
            if paused:
                counters.add(session, counters.of_frames(len(results)))
            return paused

    def hand_back(self, claimed: ClaimedRun, *, counted: bool) -> bool:
        """Let another process begin anew at once; `counted` where this try is to count against the run."""
        tries = DetectionRun.tries if counted else DetectionRun.tries - 1
        begin_anew = {"state": RunState.QUEUED, "tries": tries, **_NOTHING_DONE, **RUN_LEASE.release()}
        with self._database.write_transaction() as session:
            session.notify(Topic.RUNS)
            handed_back = self._write(session, claimed, **begin_anew)
            if handed_back:
                _forget_results(session, claimed)
            return handed_back

    def put_off(self, claimed: ClaimedRun, fault: HouseFault, *, anew: bool) -> bool:
        """Let the run wait, unclaimed, until it is released; it counts as no try. False if the lease was lost.

        `anew` says that it has come further since it was claimed, and is to begin anew; otherwise a video goes on from
        where it was.
        """
        waits = {"state": RunState.QUEUED, "tries": DetectionRun.tries - 1, **RUN_LEASE.release()}
        values = {"waiting_kind": fault.kind, "waiting_for": str(fault)} | (_NOTHING_DONE if anew else {})
        with self._database.write_transaction() as session:
            put_off = self._write(session, claimed, **waits, **values)
            if put_off and anew:
                _forget_results(session, claimed)
            return put_off

    def active(self) -> dict[int, str | None]:
        """The runs that wait or are under way, with the owner of those whose lease has not expired."""
        holder = case((RUN_LEASE.runs(self._database.now), RUN_LEASE.owner)).label("holder")
        active = select(DetectionRun.id, holder).where(UNDER_WAY)
        rows = self._queries.fetch(lambda session: session.execute(active).all())
        return {row.id: row.holder for row in rows}

    def _usable(self, media_id: str, wanted: RunRequest) -> int | None:
        done_alike = and_(
            DetectionRun.state == RunState.DONE,
            DetectionRun.detector == self.detector,
            DetectionRun.confidence == wanted.confidence,
            DetectionRun.frame_interval == wanted.frame_interval,
        )
        usable = (
            select(DetectionRun.id)
            .where(DetectionRun.media_id == media_id, or_(UNDER_WAY, done_alike))
            .order_by(DetectionRun.id.desc())
            .limit(1)
        )
        return self._queries.fetch(lambda session: session.scalar(usable))

    def _anything_to_claim(self) -> bool:
        return self._queries.fetch(lambda session: session.scalar(self._statements.any_claimable)) is not None

    def _end_failed(
        self, session: WriteTransaction, claimed: ClaimedRun, failure: RunFailure, reason: str, **values: object
    ) -> bool:
        seconds = self._fail(session, claimed.fence, failure, reason, **values)
        if seconds is None:
            _count_lost(session, claimed)
            return False
        self._report(session, claimed, MediaStatus.ERROR)
        counters.add(session, counters.of_ended_run(RunState.FAILED, seconds))
        return True

    def _fail(
        self, session: WriteTransaction, fence: ColumnElement[bool], failure: RunFailure, reason: str, **values: object
    ) -> float | None:
        """The seconds since the run's start, 0 where it never began; None where no run is within the fence."""
        ended = session.execute(
            update(DetectionRun)
            .where(fence)
            .values(
                state=RunState.FAILED,
                finished_at=self._database.now,
                failure=failure,
                error=reason,
                **values,
                **RUN_LEASE.release(),
                **NOT_PUT_OFF,
            )
            .returning(DetectionRun.finished_at - DetectionRun.started_at)
            .execution_options(synchronize_session=False)
        ).first()
        return None if ended is None else ended[0] or 0.0

    def _report(self, transaction: WriteTransaction, claimed: ClaimedRun, status: MediaStatus) -> None:
        self._change_status(transaction, claimed.media_id, status, claimed.request_id)

    def _change_status(
        self, transaction: WriteTransaction, media_id: str, status: MediaStatus, request_id: str | None
    ) -> None:
        change_status(transaction, self._queue, media_id, status, request_id=request_id)

    def _keep(
        self, session: WriteTransaction, claimed: ClaimedRun, results: Sequence[FrameResult], **values: object
    ) -> bool:
        done = {
            "frames_done": DetectionRun.frames_done + len(results),
            "boxes_done": DetectionRun.boxes_done + boxes_of(results),
        }
        kept = self._write(session, claimed, **done, **values)
        if kept:
            add_results(session, claimed.run_id, results)
        return kept

    def _write(self, session: WriteTransaction, claimed: ClaimedRun, **values: object) -> bool:
        kept = self._update(session, claimed, values)
        if not kept:
            _count_lost(session, claimed)
        return kept

    def _update(self, session: WriteTransaction, claimed: ClaimedRun, values: Mapping[str, object]) -> bool:
        changed = session.execute(
            update(DetectionRun)
            .where(claimed.fence)
            .values(**values)
            .returning(DetectionRun.id)
            .execution_options(synchronize_session=False)
        )
        return changed.first() is not None


def _count_lost(session: WriteTransaction, claimed: ClaimedRun) -> None:
    """The run has gone to another process, unless a person has ended it."""
    if session.get_one(DetectionRun, claimed.run_id).failure != RunFailure.CANCELLED:
        counters.add(session, {counters.RUN_LEASES_LOST: 1.0})


def _forget_results(session: WriteTransaction, claimed: ClaimedRun) -> None:
    session.execute(delete(Detection).where(Detection.run_id == claimed.run_id))


def release_runs(database: Database, run_ids: Sequence[int]) -> None:
    """Have runs that were put off be claimed again."""
    with database.write_transaction() as session:
        released = session.execute(
            update(DetectionRun)
            .where(DetectionRun.id.in_(run_ids), PUT_OFF)
            .values(**NOT_PUT_OFF)
            .returning(DetectionRun.id)
            .execution_options(synchronize_session=False)
        ).all()
        if released:
            session.notify(Topic.RUNS)


def delete_run(database: Database, run_id: int, *, batch: int) -> bool:
    """Delete a batch of a run's boxes, or the last of them and the run itself; true once that is gone."""
    boxes = Detection.run_id == run_id
    with database.write_transaction() as session:
        beyond = session.scalar(
            select(Detection.frame).where(boxes).order_by(Detection.frame, Detection.ordinal).offset(batch).limit(1)
        )
        if beyond is None:
            session.execute(delete(Detection).where(boxes))
            session.execute(delete(DetectionRun).where(DetectionRun.id == run_id))
        else:
            session.execute(delete(Detection).where(boxes, Detection.frame <= beyond))
    return beyond is None
