"""The dispatcher: collects what came back, decides, applies, claims what is due, and has it sent.

One thread does all the database's work in turns. A turn is one short transaction that records every outcome there is
and claims what the delivery workers can take, so outcomes share a commit while messages of one media item stay in
order: the next is claimed only where the one before was delivered. No transaction is open while anything is sent.
This module begins transactions.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
from sqlalchemy.orm import Session

from app.database import Database, Queries, WriteTransaction
from app.database.lease import new_owner
from app.errors import DatabaseDamaged, StorageFailed, StorageFull, Unavailable
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.claiming import Claiming
from app.outbox.delivery_workers import DeliveryWorkers
from app.outbox.messages import Claim, Deliver, SendResult
from app.outbox.queue import OutboxQueue
from app.outbox.recording import Recorded, Recording, as_ascii
from app.outbox.retry_policy import RetryPolicy
from app.process.background import Background
from app.process.failure_log import FailureLog

log = structlog.get_logger()

POLL_SECONDS = 5.0
"""A turn at least this often, in seconds, should a wake-up ever be missed."""

FAILURE_PAUSE_SECONDS = 1.0

LOCKED_RETRY_SECONDS = 0.1
"""Until another turn, where what is due was locked by another's transaction at that moment."""

_DATABASE_ERRORS = (Unavailable, StorageFull, StorageFailed)
"""Failures that would meet any other outcome as well."""


@dataclass(frozen=True, slots=True)
class DispatcherLimits:
    """`workers` messages at once; `lease` and `deadline` (of one send) in seconds."""

    workers: int = 8
    lease: float = 30.0
    deadline: float = 12.0


class Dispatcher(Background):
    """Delivers the outbox through `deliver`. One `turn` at a time; `start` and `stop` run turns in a thread."""

    def __init__(
        self,
        database: Database,
        queue: OutboxQueue,
        breaker: CircuitBreaker,
        deliver: Deliver,
        *,
        policy: RetryPolicy | None = None,
        limits: DispatcherLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        limits = limits or DispatcherLimits()
        policy = policy or RetryPolicy()
        self._database = database
        self._breaker = breaker
        self._queue = queue
        self._lease = limits.lease
        self._monotonic = monotonic
        self._failures = FailureLog("outbox_turn_failed")
        self._woken = threading.Event()
        self.owner = new_owner()
        self._claiming = Claiming(queue, breaker, self.owner, limits.lease)
        self._recording = Recording(queue, breaker, policy, limits.lease)
        self._workers = DeliveryWorkers(
            deliver,
            policy,
            count=limits.workers,
            lease=limits.lease,
            deadline=limits.deadline,
            on_returned=self.wake,
            monotonic=monotonic,
        )

    def wake(self) -> None:
        """Take a turn now: something was committed, or came back."""
        self._woken.set()

    def stop(self) -> None:
        """Claim no more, wait for the sends under way, record them, and let go of every lease."""
        super().stop()
        self.finish()

    def finish(self) -> None:
        """Wait for the sends under way and record them, where turns are run by the caller."""
        self._stopping.set()
        self._workers.close()
        while self._workers.has_results:
            try:
                self._record(self._workers.collect())
            except Exception:
                log.exception("outbox_leases_left_to_expire", owner=self.owner)
                return

    def _targets(self) -> Mapping[str, Callable[[], None]]:
        return {"outbox-dispatcher": self.run}

    def _interrupt(self) -> None:
        super()._interrupt()
        self._workers.stopping.set()
        self.wake()

    def run(self) -> None:
        """Turn after turn until stopped; a failing database is waited out, and no wake-up shortens that."""
        while not self._stopping.is_set():
            try:
                pause = self.turn()
            except Exception as error:  # noqa: BLE001 (the next turn may succeed)
                self._failures.failed(error)
                self._stopping.wait(FAILURE_PAUSE_SECONDS)
            else:
                self._failures.succeeded()
                self.sleep(pause)

    def sleep(self, seconds: float) -> None:
        """Wait that long, or until woken."""
        self._woken.wait(min(seconds, POLL_SECONDS))
        self._woken.clear()

    def turn(self, media_id: str | None = None) -> float:
        """Record what came back and send what is due (of one media item only, if given).

        Returns the seconds after which a turn may find something to do, if nothing wakes it before.
        """
        returned = self._workers.collect()
        if not returned:
            pause = self._idle_seconds(media_id)
            if pause > 0:
                return pause
        claims = self._record(returned, claim_more=True, media_id=media_id)
        self._workers.submit(claims)
        return 0.0 if claims or returned else LOCKED_RETRY_SECONDS

    def _idle_seconds(self, media_id: str | None) -> float:
        if self._workers.free <= 0:
            return POLL_SECONDS
        return Queries(self._database).fetch(self._due_in, media_id)

    def _due_in(self, session: Session, media_id: str | None) -> float:
        snapshot = self._breaker.fetch(session)
        due_in = self._claiming.due_in(session, now=snapshot.now, holds_any=snapshot.holds_any, media_id=media_id)
        if due_in is None:
            return POLL_SECONDS
        return max(due_in, snapshot.endpoint.circuit.wait(snapshot.now))

    def _record(
        self, returned: Sequence[SendResult], *, claim_more: bool = False, media_id: str | None = None
    ) -> list[Claim]:
        """Record outcomes, all together where that can be; returns what to send next."""
        try:
            return self._record_together(returned, claim_more=claim_more, media_id=media_id)
        except DatabaseDamaged:  # the claim, or one of them, reads what is damaged: the others may not
            if not returned:
                raise
        except _DATABASE_ERRORS:
            self._workers.put_back(returned)
            raise
        except Exception as error:
            if not returned:
                raise
            log.warning("outbox_outcomes_recorded_one_by_one", count=len(returned), error=_one_line(error))
        claims: list[Claim] = []
        for position, one in enumerate(returned):
            try:
                claims += self._record_alone(one)
            except _DATABASE_ERRORS:
                self._workers.put_back(returned[position:])
                self._workers.submit(claims)
                raise
        return claims

    def _record_alone(self, one: SendResult) -> list[Claim]:
        """Record one outcome; one that cannot be stored in plain text either is left to its lease."""
        reason = ""
        for version in (one, as_ascii(one)):
            try:
                return self._record_together([version])
            except DatabaseDamaged as error:
                reason = _one_line(error)
            except _DATABASE_ERRORS:
                raise
            except Exception as error:  # noqa: BLE001 (whatever keeps it from its record stops nobody else)
                reason = _one_line(error)
        message, epoch = one.claim.message, one.claim.epoch
        log.error("outcome_left_to_its_lease", media_id=message.media_id, seq=message.seq, epoch=epoch, error=reason)
        return []

    def _record_together(
        self, returned: Sequence[SendResult], *, claim_more: bool = False, media_id: str | None = None
    ) -> list[Claim]:
        with self._database.write_transaction() as session:
            recorded = self._recording.record(
                session, returned, in_flight=self._workers.in_flight, stopping=self._stopping.is_set()
            )
            leased_at = self._monotonic()  # the first statement above may have waited long for its turn
            claims = self._queue.continue_with(session, recorded.result.continuing)
            if claim_more:
                claims += self._claim(session, recorded, self._workers.free - len(claims), media_id)
            self._recording.count(session, recorded)
        self._recording.after_commit(recorded)
        return [replace(claim, leased_at=leased_at) for claim in claims]

    def _claim(self, session: WriteTransaction, recorded: Recorded, free: int, media_id: str | None) -> list[Claim]:
        return self._claiming.claim(
            session,
            recorded.decision.endpoint.circuit,
            free,
            now=recorded.now,
            holds_any=recorded.holds_any,
            media_id=media_id,
        )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
