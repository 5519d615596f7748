"""Detection runs from waiting to done, as rows: queue, claim, record, end, each status change with its message.

- A run is queued in the transaction that records its media item, or later. A picture that an idle detector began before
  that transaction is claimed in it, unless other runs wait.
- A process claims a run under a lease, which it renews while it works and with every batch of frames that it records.
- A run ends as done or failed. It fails if MAX_ATTEMPTS detectors died of it while their servers lived, if its file
  cannot be decoded, or if a person cancels it.
- A run that yields, or whose process stops, waits with a position from which its next claim continues. That counts as
  no attempt.
- After its process died, a run is claimed again once the lease has expired and begins anew; that counts as no further
  attempt.
- A house fault blocks a run: it waits, unclaimed, until it is released (`app.runs.blocked_runs`).

Every write is fenced by the epoch of the claim, so a process that lost its lease changes nothing. This module begins
transactions.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import and_, case, select, update
from sqlalchemy.exc import IntegrityError

from app.database import Database, Queries, Topic, WriteTransaction, counters
from app.database.models import DetectionRun, Media, MediaStatus, RunFailure, RunState
from app.detection.results import FrameResult
from app.errors import AlreadyProcessing, Forbidden, HouseFault, NotProcessing
from app.media.status import change_status
from app.outbox.queue import OutboxQueue
from app.runs.claims import LEASE_SECONDS, Claimant, ClaimedRun, Claims
from app.runs.queue_limit import QueueLimit
from app.runs.run_updates import (
    count_lost_lease,
    delete_results,
    fail_run,
    finish_run,
    record_frames,
    update_if_leased,
    update_run,
)
from app.runs.statements import BLOCKED, NOT_BLOCKED, RUN_LEASE, UNDER_WAY, RunStatements, usable_run

MAX_ATTEMPTS = 2
"""Attempts after which a run fails if each ended with the death of its detector."""

MAX_WAITING = 100_000
"""Runs that may wait or be under way before users with an equal share of them are refused."""

_NOTHING_DONE: dict[str, Any] = {"frames_done": 0, "boxes_done": 0, "packets_skipped": 0, "position": None}
_QUEUED_AGAIN: dict[str, Any] = {
    "state": RunState.QUEUED,
    "attempts": DetectionRun.attempts - 1,
    **RUN_LEASE.release(),
}


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run to queue: `confidence` is a threshold from 0 to 1, `frame_interval` the seconds between sampled frames."""

    user_id: str
    confidence: float
    frame_interval: float
    request_id: str | None = None


class Runs:
    """The use cases of detection runs. `detector` is the name stored with the results."""

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
        self._queue_limit = QueueLimit(database, max_waiting)
        self.detector = detector

    def add(self, transaction: WriteTransaction, media_id: str, wanted: RunRequest) -> int:
        """Queue a run in the caller's transaction; return its id. Raises IntegrityError if one is under way."""
        added = transaction.core.execute(self._statements.queue, self._columns(media_id, wanted))
        transaction.notify(Topic.RUNS)
        return int(added.scalar_one())

    def add_speculative(
        self, transaction: WriteTransaction, media: Media, wanted: RunRequest, owner: str
    ) -> tuple[int, ClaimedRun | None]:
        """Add the run of a new media item that `owner` has begun, in the transaction that creates the media item.

        Returns the run's id and its claim. The claim is None if other runs wait: then the run is queued behind them.
        """
        if transaction.core.scalar(self._statements.any_claimable) is not None:
            return self.add(transaction, media.id, wanted), None
        lease = {"owner": owner, "lease": self.lease_seconds}
        added = transaction.core.execute(self._statements.begin, self._columns(media.id, wanted) | lease)
        claimed = ClaimedRun.of(added.one(), media)
        self._report(transaction, claimed, MediaStatus.AI_PROCESSING)
        return claimed.run_id, claimed

    def ensure_capacity(self, user: str) -> None:
        """Raise Unavailable if no more runs of this user may wait; to be called before a request body is read."""
        self._queue_limit.ensure(user)

    def start_new(
        self,
        media_id: str,
        wanted: RunRequest,
        in_transaction: Callable[[WriteTransaction], None] = lambda _transaction: None,
    ) -> int:
        """Queue a new run of a stored media item; return its id.

        `in_transaction` adds to the transaction. Raises AlreadyProcessing if a run is under way.
        """
        try:
            with self._database.write_transaction() as transaction:
                in_transaction(transaction)
                return self.add(transaction, media_id, wanted)
        except IntegrityError as error:
            raise AlreadyProcessing(f"A run of media item {media_id} is under way; wait for it to end.") from error

    def find_or_start(self, media_id: str, wanted: RunRequest) -> int:
        """Return the run under way, or else the last equal one that this detector finished, or else a new one."""
        usable = usable_run(media_id, self.detector, wanted.confidence, wanted.frame_interval)
        while True:
            found = self._queries.fetch(lambda session: session.scalar(usable))
            if found is not None:
                return found
            try:
                return self.start_new(media_id, wanted)
            except AlreadyProcessing:
                continue  # another request has just queued a run

    def claim(self, owner: str) -> ClaimedRun | None:
        """Claim the next run that waits or whose process died, fairly between users; None if there is none."""
        if not self._anything_to_claim():
            return None
        with self._database.write_transaction() as session:
            claimed = self._claims.lease(session, Claimant(owner, self.detector, self.lease_seconds))
            if claimed is not None:
                if claimed.media_status != MediaStatus.AI_PROCESSING:
                    self._report(session, claimed, MediaStatus.AI_PROCESSING)
                if claimed.position is None:
                    delete_results(session, claimed)
            return claimed

    def should_yield(self, claimed: ClaimedRun, *, had_its_turn: bool) -> bool:
        """Whether the run is to yield, because another user waits who has no run under way.

        A waiting run that yielded itself counts only once this run `had_its_turn`.
        """
        return self._queries.fetch(self._claims.should_yield, claimed.user_id, had_its_turn=had_its_turn)

    def cancel(self, media_id: str, by: str, *, user: str | None) -> None:
        """End the run under way of a media item as failed, "cancelled by" `by`, and report the status Error.

        `user` limits this to the user's own runs; None allows everybody's. Raises NotProcessing if no run is under way
        and Forbidden if it is another user's.
        """
        with self._database.write_transaction() as session:
            run = session.scalar(
                select(DetectionRun).where(DetectionRun.media_id == media_id, UNDER_WAY).with_for_update()
            )
            if run is None:
                raise NotProcessing(f"No run of media item {media_id} is under way.")
            if user is not None and run.user_id != user:
                raise Forbidden(f"The run of media item {media_id} is another user's; ask an administrator to end it.")
            media = session.get_one(Media, media_id)
            if media.media_status != MediaStatus.AI_PROCESSING:
                self._change_status(session, media_id, MediaStatus.AI_PROCESSING, run.request_id)
            fence = and_(DetectionRun.id == run.id, UNDER_WAY)
            seconds = fail_run(session, fence, self._database.now, RunFailure.CANCELLED, f"cancelled by {by}")
            self._change_status(session, media_id, MediaStatus.ERROR, run.request_id)
            counters.add(session, counters.of_ended_run(RunState.FAILED, seconds or 0.0))

    def renew(self, claimed: ClaimedRun) -> bool:
        """Renew the lease; return False if it was lost."""
        with self._database.write_transaction() as session:
            return update_if_leased(session, claimed, self._renewal)

    def record(
        self, claimed: ClaimedRun, results: Sequence[FrameResult], total: int | None, *, skipped: int = 0
    ) -> bool:
        """Store the results of more frames and renew the lease; return False if it was lost.

        `total` is the number of frames of the media item if known, `skipped` that of corrupt packets so far.
        """
        values = {"frames_total": total, "packets_skipped": skipped, **self._renewal}
        with self._database.write_transaction() as session:
            return record_frames(session, claimed, results, values)

    def finish(
        self, claimed: ClaimedRun, results: Sequence[FrameResult], *, skipped: int = 0, warnings: Sequence[str] = ()
    ) -> bool:
        """End the run as done with the results of its last frames, and report AIProcessed; False if the lease was lost.

        `warnings` describe what is missing from a damaged picture.
        """
        with self._database.write_transaction() as session:
            seconds = finish_run(session, self._statements, claimed, results, skipped=skipped, warnings=warnings)
            if seconds is None:
                return False
            self._report(session, claimed, MediaStatus.AI_PROCESSED)
            counters.add(session, {**counters.of_ended_run(RunState.DONE, seconds), **counters.of_frames(len(results))})
            return True

    def fail(self, claimed: ClaimedRun, failure: RunFailure, reason: str, *, skipped: int = 0) -> bool:
        """End the run as failed and report the status Error; return False if the lease was lost."""
        now = self._database.now
        with self._database.write_transaction() as session:
            seconds = fail_run(session, claimed.fence, now, failure, reason, packets_skipped=skipped)
            if seconds is None:
                count_lost_lease(session, claimed)
                return False
            self._report(session, claimed, MediaStatus.ERROR)
            counters.add(session, counters.of_ended_run(RunState.FAILED, seconds))
            return True

    def pause(
        self, claimed: ClaimedRun, results: Sequence[FrameResult], position: str | None, *, skipped: int = 0
    ) -> bool:
        """Queue the run again with its last results and the position to continue from; it counts as no attempt.

        Without a position the run begins anew. Returns False if the lease was lost.
        """
        if position is None:
            return self.requeue(claimed, counted=False)
        values = {"position": position, "packets_skipped": skipped, **_QUEUED_AGAIN}
        with self._database.write_transaction() as session:
            session.notify(Topic.RUNS)
            return record_frames(session, claimed, results, values)

    def requeue(self, claimed: ClaimedRun, *, counted: bool) -> bool:
        """Queue the run again, to begin anew; `counted` says whether this attempt counts towards MAX_ATTEMPTS.

        Returns False if the lease was lost.
        """
        values = _QUEUED_AGAIN | _NOTHING_DONE | ({"attempts": DetectionRun.attempts} if counted else {})
        with self._database.write_transaction() as session:
            session.notify(Topic.RUNS)
            requeued = update_run(session, claimed, values)
            if requeued:
                delete_results(session, claimed)
            return requeued

    def block(self, claimed: ClaimedRun, fault: HouseFault, *, restart: bool) -> bool:
        """Block the run until it is released; it counts as no attempt. Returns False if the lease was lost.

        With `restart` it begins anew, because it has recorded frames since it was claimed; otherwise a video continues
        from where it was claimed.
        """
        reason = {"waiting_kind": fault.kind, "waiting_for": str(fault)}
        with self._database.write_transaction() as session:
            blocked = update_run(session, claimed, _QUEUED_AGAIN | reason | (_NOTHING_DONE if restart else {}))
            if blocked and restart:
                delete_results(session, claimed)
            return blocked

    def active(self) -> dict[int, str | None]:
        """Return the runs that wait or are under way, each with its owner if its lease has not expired."""
        holder = case((RUN_LEASE.runs(self._database.now), RUN_LEASE.owner)).label("holder")
        active = select(DetectionRun.id, holder).where(UNDER_WAY)
        rows = self._queries.fetch(lambda session: session.execute(active).all())
        return {row.id: row.holder for row in rows}

    def _columns(self, media_id: str, wanted: RunRequest) -> dict[str, Any]:
        return {"media_id": media_id, "detector": self.detector, **asdict(wanted)}

    def _anything_to_claim(self) -> bool:
        return self._queries.fetch(lambda session: session.scalar(self._statements.any_claimable)) is not None

    def _report(self, transaction: WriteTransaction, claimed: ClaimedRun, status: MediaStatus) -> None:
        self._change_status(transaction, claimed.media_id, status, claimed.request_id)

    def _change_status(
        self, transaction: WriteTransaction, media_id: str, status: MediaStatus, request_id: str | None
    ) -> None:
        change_status(transaction, self._queue, media_id, status, request_id=request_id)


def release_runs(database: Database, run_ids: Sequence[int]) -> None:
    """Let blocked runs be claimed again."""
    with database.write_transaction() as session:
        released = session.execute(
            update(DetectionRun)
            .where(DetectionRun.id.in_(run_ids), BLOCKED)
            .values(**NOT_BLOCKED)
            .returning(DetectionRun.id)
            .execution_options(synchronize_session=False)
        ).all()
        if released:
            session.notify(Topic.RUNS)
