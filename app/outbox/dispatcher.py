"""The dispatcher: claims what is due, has it sent, and records what came of it.

One thread does all the database's work in turns. A turn is one short transaction that records every outcome there is
and claims what the free senders can take, so outcomes share a commit while messages of one media stay in order: the
next is claimed only where the one before was acknowledged. No transaction is open while anything is sent.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from app.db import Database
from app.outbox import tally
from app.outbox.gate import Gate, GateCondition
from app.outbox.gatekeeper import GateKeeper, closes_gate
from app.outbox.messages import Deliver, Verdict
from app.outbox.queue import Claim, OutboxQueue, Try
from app.outbox.retry import RetryPolicy
from app.outbox.senders import Senders, Sent

log = structlog.get_logger()

UNTIL_WOKEN = 5.0
"""A turn at least this often, in seconds, should a wake-up ever be missed."""

AFTER_TROUBLE = 1.0

WHILE_LOCKED = 0.1
"""Seconds until another look, where what is due was locked by another's transaction at that moment."""


@dataclass(frozen=True, slots=True)
class DispatcherLimits:
    """`senders` messages at once; `lease` and `deadline` (of one send) in seconds."""

    senders: int = 8
    lease: float = 30.0
    deadline: float = 12.0


class Dispatcher:
    """Delivers the outbox through `deliver`. One `turn` at a time; `start` and `stop` run turns in a thread."""

    def __init__(
        self,
        database: Database,
        queue: OutboxQueue,
        gate: Gate,
        deliver: Deliver,
        *,
        policy: RetryPolicy | None = None,
        limits: DispatcherLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._queue = queue
        self._gate = gate
        self._policy = policy or RetryPolicy()
        self._limits = limits or DispatcherLimits()
        self._keeper = GateKeeper(gate, queue, self._policy, lease=self._limits.lease)
        self._monotonic = monotonic
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._senders = Senders(
            deliver,
            self._policy,
            count=self._limits.senders,
            lease=self._limits.lease,
            deadline=self._limits.deadline,
            on_sent=self.wake,
            monotonic=monotonic,
        )

    def wake(self) -> None:
        """Have a look now: something was committed, or came back."""
        self._woken.set()

    def start(self) -> None:
        """Run turns in a thread of its own until `stop`."""
        self._thread = threading.Thread(target=self.run, name="outbox-dispatcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Claim no more, wait for the sends under way, record them, and let go of every lease."""
        self._stopping.set()
        self._senders.stopping.set()
        self.wake()
        if self._thread is not None:
            self._thread.join()
        self.finish()

    def finish(self) -> None:
        """Wait for the sends under way and record them, where turns are run by the caller."""
        self._stopping.set()
        self._senders.close()
        while self._senders.collectable:
            try:
                self._record(self._senders.collect())
            except Exception:
                log.exception("outbox_leases_left_to_expire", owner=self.owner)
                return

    def run(self) -> None:
        """Turn after turn until stopped; trouble with the database is waited out, never fatal."""
        while not self._stopping.is_set():
            try:
                pause = self.turn()
            except Exception:
                log.exception("outbox_turn_failed")
                pause = AFTER_TROUBLE
            self.sleep(pause)

    def sleep(self, seconds: float) -> None:
        """Wait that long, or until woken."""
        self._woken.wait(min(seconds, UNTIL_WOKEN))
        self._woken.clear()

    def turn(self, media_id: str | None = None) -> float:
        """Record what came back and send what is due (of one media only, if given).

        Returns the seconds after which a turn may find something to do, if nothing wakes it before.
        """
        sent = self._senders.collect()
        if not sent:
            pause = self._nothing_for(media_id)
            if pause > 0:
                return pause
        claims = self._record(sent, claim_more=True, media_id=media_id)
        for claim, probe, leased_at in claims:
            self._senders.submit(claim, probe=probe, leased_at=leased_at)
        return 0.0 if claims or sent else WHILE_LOCKED

    def _nothing_for(self, media_id: str | None) -> float:
        if self._senders.free <= 0:
            return UNTIL_WOKEN
        with self._database.reading() as session:
            due_in = self._queue.next_due_in(session, media_id=media_id)
            if due_in is None:
                return UNTIL_WOKEN
            return max(due_in, self._gate.condition(session).closed_for or 0.0)

    def _record(
        self, sent: list[Sent], *, claim_more: bool = False, media_id: str | None = None
    ) -> list[tuple[Claim, bool, float]]:
        """Returns what to send next, each with whether it is a probe and when its lease began."""
        try:
            with self._database.writing() as session:
                gate = self._keeper.judge(session, sent)
                leased_at = self._monotonic()  # the first statement above may have waited long for its turn
                going_on, figures = self._settle(session, sent, gate)
                claims = [(claim, False, leased_at) for claim in self._queue.continue_with(session, going_on)]
                if claim_more:
                    probing = not gate.is_open
                    free = self._senders.free - len(claims)
                    claims += [(claim, probing, leased_at) for claim in self._claim(session, free, probing, media_id)]
                tally.count(session, figures)
        except Exception:
            self._senders.put_back(sent)
            raise
        for one in sent:
            _log_delivery(one)
        return claims

    def _claim(self, session: Session, free: int, probing: bool, media_id: str | None) -> list[Claim]:
        if free <= 0:
            return []
        if probing and not self._gate.take_probe(session, self._limits.lease):
            return []
        limit = 1 if probing else free
        claims = self._queue.claim(session, self.owner, limit, self._limits.lease, media_id=media_id)
        if probing and not claims:
            self._gate.probe_now(session)
        return claims

    def _settle(
        self, session: Session, sent: list[Sent], gate: GateCondition
    ) -> tuple[list[Claim], Mapping[str, float]]:
        """Record every outcome; returns the claims that go on with their media's next messages, and what to count."""
        arrived = [one.tried for one in sent if one.tried and one.tried.answer.verdict is Verdict.DELIVERED]
        may_go_on = gate.is_open and not self._stopping.is_set()
        acknowledged = self._queue.acknowledge(session, arrived, go_on=may_go_on, lease=self._limits.lease)
        others = [one.tried for one in sent if one.tried and self._apply(session, one, one.tried, gate)]
        for one in sent:
            if one.tried is None:
                self._queue.release(session, one.claim)
        recorded = [*acknowledged.recorded, *others]
        self._queue.note_attempts(session, recorded)
        kept = {tried.claim.message.media_id for tried in recorded}
        lost = [one.tried for one in sent if one.tried and one.tried.claim.message.media_id not in kept]
        resumed = self._resume(session, lost, go_on=may_go_on)
        lost = [tried for tried in lost if tried.claim not in resumed]
        figures = {**tally.of_attempts(recorded), **tally.of_latencies(acknowledged.latencies)}
        _log_lost(lost)
        going_on = acknowledged.going_on + (resumed if may_go_on else [])
        return going_on, figures | ({tally.LEASES_LOST: len(lost)} if lost else {})

    def _resume(self, session: Session, lost: list[Try], *, go_on: bool) -> list[Claim]:
        """What seems lost may have been recorded by a commit that seemed to fail: its claims are still ours."""
        arrived = [tried for tried in lost if tried.answer.verdict is Verdict.DELIVERED]
        return self._queue.resume(session, arrived, go_on=go_on, lease=self._limits.lease) if arrived else []

    def _apply(self, session: Session, sent: Sent, tried: Try, gate: GateCondition) -> bool:
        """Record a try that did not deliver; false if its lease was lost, or if it did."""
        claim, answer, queue = tried.claim, tried.answer, self._queue
        if closes_gate(sent):
            delay = max(gate.closed_for or 0.0, self._policy.gate_delay(1, None))
            return queue.postpone(session, tried, delay=delay, counted=False)
        if answer.verdict is Verdict.DELIVERED:
            return False
        limited = answer.max_tries is not None
        if answer.verdict is Verdict.PARK or (limited and claim.refusals + 1 >= (answer.max_tries or 0)):
            return queue.park(session, tried)
        delay = max(self._policy.media_delay(claim.attempts + 1), answer.retry_after or 0.0)
        return queue.postpone(session, tried, delay=delay, counted=True, refused=limited)


def _log_lost(tries: list[Try]) -> None:
    for tried in tries:
        message, epoch = tried.claim.message, tried.claim.epoch
        log.warning("lease_lost", media_id=message.media_id, seq=message.seq, epoch=epoch)


def _log_delivery(sent: Sent) -> None:
    message, tried = sent.claim.message, sent.tried
    if tried is None:
        return
    log.info(
        "delivery",
        media_id=message.media_id,
        seq=message.seq,
        kind=message.kind.value,
        request_id=message.request_id,
        verdict=tried.answer.verdict.value,
        status=tried.answer.status,
        detail=tried.answer.detail,
        milliseconds=round(tried.duration * 1000, 1),
    )
