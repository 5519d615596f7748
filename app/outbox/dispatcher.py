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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from app.db import Database
from app.errors import DetectionsError
from app.outbox.gate import Gate, GateCondition
from app.outbox.messages import Deliver, Verdict
from app.outbox.queue import Claim, OutboxQueue, Try
from app.outbox.retry import RetryPolicy
from app.outbox.senders import Senders, Sent

log = structlog.get_logger()

UNTIL_WOKEN = 5.0
"""A turn at least this often, in seconds, should a wake-up ever be missed."""

AFTER_TROUBLE = 1.0


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
            except DetectionsError:
                log.warning("outbox_leases_left_to_expire", owner=self.owner)
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
            pause = self._nothing_for()
            if pause > 0:
                return pause
        leased_at = self._monotonic()
        claims = self._record(sent, claim_more=True, media_id=media_id)
        for claim, probe in claims:
            self._senders.submit(claim, probe=probe, leased_at=leased_at)
        return UNTIL_WOKEN if not claims and not sent else 0.0

    def _nothing_for(self) -> float:
        if self._senders.free == 0:
            return UNTIL_WOKEN
        with self._database.reading() as session:
            due_in = self._queue.next_due_in(session)
            if due_in is None:
                return UNTIL_WOKEN
            return max(due_in, self._gate.condition(session).closed_for or 0.0)

    def _record(
        self, sent: list[Sent], *, claim_more: bool = False, media_id: str | None = None
    ) -> list[tuple[Claim, bool]]:
        try:
            with self._database.writing() as session:
                gate = self._judge_gate(session, sent)
                going_on = [one.claim for one in sent if self._settle(session, one, gate)]
                claims = [(claim, False) for claim in self._queue.continue_with(session, going_on)]
                if claim_more:
                    claims += self._claim(session, gate, self._senders.free - len(claims), media_id)
        except Exception:
            self._senders.put_back(sent)
            raise
        for one in sent:
            _log_delivery(one)
        return claims

    def _claim(
        self, session: Session, gate: GateCondition, free: int, media_id: str | None
    ) -> list[tuple[Claim, bool]]:
        if free <= 0:
            return []
        probing = not gate.is_open
        if probing and not self._gate.take_probe(session, self._limits.lease):
            return []
        limit = 1 if probing else free
        claims = self._queue.claim(session, self.owner, limit, self._limits.lease, media_id=media_id)
        if probing and not claims:
            self._gate.probe_now(session)
        return [(claim, probing) for claim in claims]

    def _judge_gate(self, session: Session, sent: Sequence[Sent]) -> GateCondition:
        gate = self._gate.condition(session)
        for one in sent:
            if one.tried is None:
                if one.probe:
                    self._gate.probe_now(session)
                continue
            answer = one.tried.answer
            silent_probe = one.probe and answer.status is None
            closes = answer.verdict is Verdict.CLOSE_GATE or silent_probe
            if closes and (gate.is_open or one.probe):
                gate = self._close_gate(session, gate.failures + 1, one.tried)
            elif closes and (answer.retry_after or 0) > (gate.closed_for or 0):
                gate = self._close_gate(session, gate.failures, one.tried)
            elif one.probe and not closes:
                self._gate.open(session)
                gate = GateCondition()
                log.info("gate_opened", endpoint=self._gate.endpoint)
        return gate

    def _close_gate(self, session: Session, failures: int, tried: Try) -> GateCondition:
        delay = self._policy.gate_delay(failures, tried.answer.retry_after)
        self._gate.close(session, failures=failures, delay=delay, reason=tried.answer.detail)
        log.warning("gate_closed", endpoint=self._gate.endpoint, seconds=round(delay, 3), reason=tried.answer.detail)
        return GateCondition(delay, failures, tried.answer.detail)

    def _settle(self, session: Session, sent: Sent, gate: GateCondition) -> bool:
        """Record one outcome; true if its claim goes on with the media's next message."""
        claim, tried = sent.claim, sent.tried
        if tried is None:
            self._queue.release(session, claim)
            return False
        recorded, goes_on = self._apply(session, tried, gate)
        if recorded:
            self._queue.note_attempts(session, [tried])
        else:
            log.warning("lease_lost", media_id=claim.message.media_id, seq=claim.message.seq, epoch=claim.epoch)
        return goes_on

    def _apply(self, session: Session, tried: Try, gate: GateCondition) -> tuple[bool, bool]:
        claim, answer, queue = tried.claim, tried.answer, self._queue
        match answer.verdict:
            case Verdict.DELIVERED:
                may_go_on = gate.is_open and not self._stopping.is_set()
                more = queue.acknowledge(session, tried, go_on=may_go_on, lease=self._limits.lease)
                return more is not None, bool(more)
            case Verdict.PARK:
                return queue.park(session, tried), False
            case Verdict.CLOSE_GATE:
                delay = gate.closed_for or self._policy.gate_delay(1, answer.retry_after)
                return queue.postpone(session, tried, delay=delay, counted=False), False
            case Verdict.RETRY:
                if answer.max_tries is not None and claim.refusals + 1 >= answer.max_tries:
                    return queue.park(session, tried), False
                delay = max(self._policy.media_delay(claim.attempts + 1), answer.retry_after or 0.0)
                refused = answer.max_tries is not None
                return queue.postpone(session, tried, delay=delay, counted=True, refused=refused), False


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
