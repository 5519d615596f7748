"""The dispatcher: collects results, decides, applies the transitions, claims due messages and has them sent.

One thread does all database work in turns. A turn is one short transaction that records all results and claims as many
messages as the delivery workers can take, so results share commits. Messages of one media item stay in order, because
the next one is claimed only after the one before was delivered. No transaction is open while a message is sent. This
module begins transactions.
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
"""Longest time between two turns, in case a wake-up is missed."""

FAILURE_PAUSE_SECONDS = 1.0
"""Pause after a turn that failed."""

LOCKED_RETRY_SECONDS = 0.1
"""Pause if another transaction held the locks of all due streams."""

_DATABASE_ERRORS = (Unavailable, StorageFull, StorageFailed)
"""Errors that would also occur with any other result."""


@dataclass(frozen=True, slots=True)
class DispatcherLimits:
    """The number of `workers`, and the seconds of a claim's `lease` and of one send, its `deadline`."""

    workers: int = 8
    lease: float = 30.0
    deadline: float = 12.0


class Dispatcher(Background):
    """Delivers the outbox through `deliver`. `start` and `stop` run turns in a thread; `turn` runs a single one."""

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
            on_results=self.wake,
            monotonic=monotonic,
        )

    def wake(self) -> None:
        """Start the next turn now, because a message was committed or a result came back."""
        self._woken.set()

    def stop(self) -> None:
        """Stop claiming, wait for the requests under way, record their results and release every lease."""
        super().stop()
        self.finish()

    def finish(self) -> None:
        """Wait for the requests under way and record their results, if the caller runs the turns."""
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
        """Run turns until stopped. After a failed turn it pauses, and wake-ups do not shorten the pause."""
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
        """Sleep for `seconds`, at most POLL_SECONDS, or until `wake` is called."""
        self._woken.wait(min(seconds, POLL_SECONDS))
        self._woken.clear()

    def turn(self, media_id: str | None = None) -> float:
        """Record the results and send due messages, of one media item if `media_id` is given.

        Returns the seconds to wait before the next turn, unless `wake` is called.
        """
        results = self._workers.collect()
        if not results:
            pause = self._idle_seconds(media_id)
            if pause > 0:
                return pause
        claims = self._record(results, claim_more=True, media_id=media_id)
        self._workers.submit(claims)
        return 0.0 if claims or results else LOCKED_RETRY_SECONDS

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
        self, results: Sequence[SendResult], *, claim_more: bool = False, media_id: str | None = None
    ) -> list[Claim]:
        """Record results, in one transaction if possible; return the messages to send next."""
        try:
            return self._record_together(results, claim_more=claim_more, media_id=media_id)
        except DatabaseDamaged:  # one of the claims reads a damaged page; the others may not
            if not results:
                raise
        except _DATABASE_ERRORS:
            self._workers.put_back(results)
            raise
        except Exception as error:
            if not results:
                raise
            log.warning("outbox_results_recorded_one_by_one", count=len(results), error=_one_line(error))
        claims: list[Claim] = []
        for position, result in enumerate(results):
            try:
                claims += self._record_alone(result)
            except _DATABASE_ERRORS:
                self._workers.put_back(results[position:])
                self._workers.submit(claims)
                raise
        return claims

    def _record_alone(self, result: SendResult) -> list[Claim]:
        """Record one result, in ASCII if need be. If that fails too, the message is claimed again after its lease."""
        reason = ""
        for version in (result, as_ascii(result)):
            try:
                return self._record_together([version])
            except DatabaseDamaged as error:
                reason = _one_line(error)
            except _DATABASE_ERRORS:
                raise
            except Exception as error:  # noqa: BLE001 (a result that cannot be recorded must not stop the others)
                reason = _one_line(error)
        message, epoch = result.claim.message, result.claim.epoch
        log.error("result_not_recorded", media_id=message.media_id, seq=message.seq, epoch=epoch, error=reason)
        return []

    def _record_together(
        self, results: Sequence[SendResult], *, claim_more: bool = False, media_id: str | None = None
    ) -> list[Claim]:
        with self._database.write_transaction() as session:
            recorded = self._recording.record(
                session, results, in_flight=self._workers.in_flight, stopping=self._stopping.is_set()
            )
            leased_at = self._monotonic()  # the first statement above may have waited for a lock
            claims = self._queue.continue_with(session, recorded.applied.continuing)
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
