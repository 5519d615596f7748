"""`flask outbox flush`: try everything that was pending at its start, now, whatever its backoff.

It works beside running dispatchers, and what is enqueued meanwhile does not keep it: the media and sequence numbers
of the start are its whole task.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Row, func, select, update
from sqlalchemy.orm import Session

from app.db import Database
from app.models import OutboxStream
from app.outbox.dispatcher import Dispatcher
from app.outbox.gate import Gate, GateCondition

BRING_FORWARD_EVERY = 2.0
LOOK_EVERY = 0.1


@dataclass(frozen=True, slots=True)
class FlushReport:
    """`total` and `pending` count messages of the start; `parked` counts media."""

    total: int
    delivered: int
    pending: int
    parked: int
    timed_out: bool


@dataclass(frozen=True, slots=True)
class _Progress:
    pending: int
    parked_media: int
    unsettled: bool  # something was not tried yet, or is being tried


class Flush:
    """One flush. `on_progress` is given (delivered, total) as it goes."""

    def __init__(
        self,
        database: Database,
        gate: Gate | None,
        dispatcher: Dispatcher | None,
        *,
        media_id: str | None = None,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._gate = gate
        self._dispatcher = dispatcher
        self._media_id = media_id
        self._on_progress = on_progress
        self._monotonic = monotonic

    def run(self, *, wait: bool, timeout: float | None) -> FlushReport:
        """Deliver what is pending now; with `wait`, until drained or `timeout` seconds have passed."""
        deadline = None if timeout is None else self._monotonic() + timeout
        targets, started = self._bring_forward()
        total = sum(last - acked for acked, last in targets.values())
        brought_forward = self._monotonic()
        look_again = 0.0
        progress = self._look(targets, started)
        while self._dispatcher and self._goes_on(progress, wait) and not self._is_past(deadline):
            pause = self._dispatcher.turn(self._media_id)
            self._dispatcher.sleep(min(pause, LOOK_EVERY))
            if wait and self._monotonic() - brought_forward > BRING_FORWARD_EVERY:
                self._bring_forward()
                brought_forward = self._monotonic()
            if self._monotonic() >= look_again:
                asked = self._monotonic()
                progress = self._look(targets, started)
                # Looking at a long backlog takes its time: it must not become the main work.
                look_again = self._monotonic() + max(LOOK_EVERY, 5 * (self._monotonic() - asked))
                self._on_progress(total - progress.pending, total)
        if self._dispatcher:
            self._dispatcher.finish()
            progress = self._look(targets, started)
        self._on_progress(total - progress.pending, total)
        return FlushReport(
            total, total - progress.pending, progress.pending, progress.parked_media, self._is_past(deadline)
        )

    def _goes_on(self, progress: _Progress, wait: bool) -> bool:
        if wait:
            return progress.pending > 0
        return progress.unsettled

    def _is_past(self, deadline: float | None) -> bool:
        return deadline is not None and self._monotonic() >= deadline

    def _bring_forward(self) -> tuple[dict[str, tuple[int, int]], float]:
        """Make every waiting stream due, but those being sent at this moment; returns what is pending."""
        with self._database.writing() as session:
            now = float(session.scalar(select(self._database.now)) or 0.0)
            session.execute(
                update(OutboxStream)
                .where(OutboxStream.due_at > now, OutboxStream.lease_owner.is_(None), *self._scope())
                .values(due_at=now)
                .execution_options(synchronize_session=False)
            )
            if self._gate:
                self._gate.probe_now(session)
            return {row.media_id: (row.acked_seq, row.last_seq) for row in self._waiting(session)}, now

    def _look(self, targets: dict[str, tuple[int, int]], started: float) -> _Progress:
        pending, unsettled = 0, False
        with self._database.reading() as session:
            gate = self._gate.condition(session) if self._gate else GateCondition()
            parked = session.scalar(select(func.count()).where(OutboxStream.parked_at.is_not(None), *self._scope()))
            for row in self._waiting(session):
                _acked, last_wanted = targets.get(row.media_id, (0, 0))
                left = max(0, last_wanted - row.acked_seq)
                pending += left
                untried = row.due_at <= started and gate.is_open
                unsettled |= left > 0 and (untried or row.lease_owner is not None)
        probe_is_due = gate.closed_for is not None and gate.closed_for <= 0
        return _Progress(pending, parked or 0, unsettled or (pending > 0 and probe_is_due))

    def _waiting(self, session: Session) -> Iterable[Row[tuple[str, int, int, float, str | None]]]:
        stream = OutboxStream
        return session.execute(
            select(stream.media_id, stream.acked_seq, stream.last_seq, stream.due_at, stream.lease_owner).where(
                stream.due_at.is_not(None), *self._scope()
            )
        )

    def _scope(self) -> list[ColumnElement[bool]]:
        return [OutboxStream.media_id == self._media_id] if self._media_id else []
