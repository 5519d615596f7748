"""`flask outbox flush`: send every message that is pending at the start now, regardless of backoff.

A flush runs beside other dispatchers. It ignores messages added later: it is done when the sequence numbers that were
pending at its start are delivered or parked.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Row, or_, select, update
from sqlalchemy.orm import Session

from app.database import Database, Queries, Topic, WriteTransaction
from app.database.models import OutboxStream
from app.database.time_bounds import enforce
from app.outbox.admin import ALL_SECONDS, OutboxAdmin
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.dispatcher import Dispatcher
from app.outbox.schedule import OUTBOX_BOUNDS

BRING_FORWARD_SECONDS = 2.0
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class FlushReport:
    """`total`, `delivered` and `pending` count messages that were pending at the start; `parked` counts media items."""

    total: int
    delivered: int
    pending: int
    parked: int
    timed_out: bool


class _Target(NamedTuple):
    """The head of one stream at the start."""

    acked: int
    last: int
    epoch: int


@dataclass(frozen=True, slots=True)
class _Progress:
    delivered: int
    pending: int
    parked_media: int
    awaits_attempt: bool  # some message has not been sent yet, or is being sent


class Flush:
    """One flush. `on_progress(delivered, total)` is called while it runs."""

    def __init__(
        self,
        database: Database,
        breaker: CircuitBreaker | None,
        dispatcher: Dispatcher | None,
        *,
        media_id: str | None = None,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._admin = OutboxAdmin(database)
        self._queries = Queries(database, statement_seconds=ALL_SECONDS)
        self._breaker = breaker
        self._dispatcher = dispatcher
        self._media_id = media_id
        self._on_progress = on_progress
        self._monotonic = monotonic
        self._has_requested_probe = breaker is None

    def run(self, *, wait: bool, timeout: float | None) -> FlushReport:
        """Send every pending message once; with `wait`, until all are delivered or parked, or for `timeout` seconds."""
        deadline = None if timeout is None else self._monotonic() + timeout
        targets, started = self._admin.apply(self._bring_forward)
        total = sum(target.last - target.acked for target in targets.values())
        if self._dispatcher:
            try:
                self._deliver(self._dispatcher, targets, started, total, wait=wait, deadline=deadline)
            finally:
                self._dispatcher.finish()
        progress = self._fetch_progress(targets, started)
        self._on_progress(progress.delivered, total)
        timed_out = progress.pending > 0 and self._is_past(deadline)
        return FlushReport(total, progress.delivered, progress.pending, progress.parked_media, timed_out)

    def _deliver(
        self,
        dispatcher: Dispatcher,
        targets: dict[str, _Target],
        started: float,
        total: int,
        *,
        wait: bool,
        deadline: float | None,
    ) -> None:
        brought_forward = self._monotonic()
        next_poll = 0.0
        progress = self._fetch_progress(targets, started)
        while (progress.pending > 0 if wait else progress.awaits_attempt) and not self._is_past(deadline):
            pause = dispatcher.turn(self._media_id)
            dispatcher.sleep(min(pause, POLL_SECONDS))
            if self._monotonic() - brought_forward > BRING_FORWARD_SECONDS:
                self._bring_forward_again(wait=wait)
                brought_forward = self._monotonic()
            if self._monotonic() >= next_poll:
                asked = self._monotonic()
                progress = self._fetch_progress(targets, started)
                # Counting a long backlog takes time; it may take up to a sixth of this thread's.
                next_poll = self._monotonic() + max(POLL_SECONDS, 5 * (self._monotonic() - asked))
                self._on_progress(progress.delivered, total)

    def _is_past(self, deadline: float | None) -> bool:
        return deadline is not None and self._monotonic() >= deadline

    def _bring_forward(self, session: WriteTransaction) -> tuple[dict[str, _Target], float]:
        """Make every waiting stream due that is not leased; return the pending streams and the database's time."""
        stream = OutboxStream
        now = self._now(session)
        enforce(session, self._database.now, OUTBOX_BOUNDS)
        session.execute(
            update(stream)
            .where(stream.due_at > now, stream.lease_owner.is_(None), *self._scope())
            .values(due_at=now)
            .execution_options(synchronize_session=False)
        )
        self._request_probe(session)
        session.notify(Topic.MESSAGES)
        rows = session.execute(
            select(stream.media_id, stream.acked_seq, stream.last_seq, stream.lease_epoch).where(
                stream.due_at.is_not(None), *self._scope()
            )
        )
        return {media_id: _Target(*head) for media_id, *head in rows}, now

    def _bring_forward_again(self, *, wait: bool) -> None:
        if wait:
            self._admin.apply(self._bring_forward)
        elif not self._has_requested_probe:
            self._admin.apply(self._request_probe)

    def _request_probe(self, session: WriteTransaction) -> None:
        """Make the probes of an open circuit and of held users due, unless a message is being sent."""
        now = self._now(session)
        stream = OutboxStream
        under_way = select(stream.media_id).where(stream.due_at > now, stream.lease_owner.is_not(None)).limit(1)
        if self._breaker and session.scalar(under_way) is None:
            self._breaker.probe_now(session)
            self._breaker.probe_users_now(session)
            self._has_requested_probe = True

    def _now(self, session: Session) -> float:
        return float(session.scalar(select(self._database.now)) or 0.0)

    def _fetch_progress(self, targets: dict[str, _Target], started: float) -> _Progress:
        return self._queries.fetch(self._progress, targets, started)

    def _progress(self, session: Session, targets: dict[str, _Target], started: float) -> _Progress:
        delivered = sum(target.last - target.acked for target in targets.values())
        pending, parked, awaits_attempt = 0, 0, False
        now = self._now(session)
        suspended = self._suspended(session, now)
        for row in self._unfinished(session):
            parked += row.parked_at is not None
            target = targets.get(row.media_id)
            left = target.last - row.acked_seq if target else 0
            if target is None or left <= 0:
                continue
            delivered -= left
            if row.parked_at is None:
                pending += left
                awaits_attempt |= _awaits_attempt(row, target, started, now, suspended)
        probe_is_due = suspended.probe_is_due or (suspended.any and not self._has_requested_probe)
        return _Progress(delivered, pending, parked, awaits_attempt or (pending > 0 and probe_is_due))

    def _suspended(self, session: Session, now: float) -> "_Suspended":
        if self._breaker is None:
            return _Suspended(is_open=False, users=frozenset(), probe_is_due=False)
        circuit = self._breaker.fetch(session).endpoint.circuit
        held = self._breaker.held_users(session)
        probe_is_due = not circuit.is_closed and circuit.wait(now) <= 0
        if circuit.is_closed:
            probe_is_due = any(one.hold.until <= now and one.waiting for one in held)
        return _Suspended(not circuit.is_closed, frozenset(one.user_id for one in held), probe_is_due)

    def _unfinished(self, session: Session) -> "Iterable[_Row]":
        stream = OutboxStream
        waits = or_(stream.due_at.is_not(None), stream.parked_at.is_not(None))
        columns = (stream.media_id, stream.user_id, stream.acked_seq, stream.due_at, stream.parked_at)
        return session.execute(select(*columns, stream.lease_owner, stream.lease_epoch).where(waits, *self._scope()))

    def _scope(self) -> list[ColumnElement[bool]]:
        return [OutboxStream.media_id == self._media_id] if self._media_id else []


_Row = Row[str, str, int, float | None, float | None, str | None, int]


@dataclass(frozen=True, slots=True)
class _Suspended:
    """Whether the circuit is open or half-open, which users are held, and whether a probe of either is due."""

    is_open: bool
    users: frozenset[str]
    probe_is_due: bool

    @property
    def any(self) -> bool:
        return self.is_open or bool(self.users)


def _awaits_attempt(row: _Row, target: _Target, started: float, now: float, suspended: _Suspended) -> bool:
    """Whether the message was not sent since the start although it may be, or is being sent for the first time."""
    due_at = row.due_at or 0.0
    flows = not suspended.is_open and row.user_id not in suspended.users
    if row.lease_owner is None:
        return due_at <= started and flows
    # A flush does not wait for later attempts, nor for a lease whose owner died while nothing may be sent.
    return row.lease_epoch <= target.epoch + 1 and (due_at > now or flows)
