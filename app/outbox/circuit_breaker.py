"""The endpoint's circuit breaker and the holds on its users, stored in the database and shared by every dispatcher.

While the circuit is not closed, one probe at a time is sent. A dispatcher takes the probe with one UPDATE that moves
`retry_at` ahead by the probe's lease: one dispatcher wins, and if it dies the next probe follows after the lease. A
held user's probe is taken in the same way. A time further ahead than LONGEST_WAIT was written before the clock was set
back and counts as due now. Nothing here begins or commits a transaction.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Row, case, delete, func, literal, null, or_, select, true, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.database import Topic, WriteTransaction
from app.database.models import OutboxCircuit, OutboxHold, OutboxStream
from app.database.sql_functions import upsert
from app.outbox.circuit import LONGEST_WAIT, Circuit, CircuitState, EndpointState, Hold

_C, _H = OutboxCircuit, OutboxHold

# Reads one index entry however many streams of the user wait; for EXISTS PostgreSQL may choose to read all of them.
_FIRST_DUE = (
    select(OutboxStream.due_at)
    .where(OutboxStream.user_id == _H.user_id, OutboxStream.due_at.is_not(None))
    .order_by(OutboxStream.due_at)
    .limit(1)
    .correlate(_H)
    .scalar_subquery()
)


@dataclass(frozen=True, slots=True)
class EndpointSnapshot:
    """The endpoint's state at `now`, in seconds since 1970; `holds_any` says whether any user is held."""

    now: float
    endpoint: EndpointState
    holds_any: bool = False


@dataclass(frozen=True, slots=True)
class HeldUser:
    """A held user with the number of the user's `waiting` messages."""

    user_id: str
    hold: Hold
    waiting: int


class CircuitBreaker:
    """The circuit breaker of one endpoint with its holds. `now` is the database's clock as an SQL expression."""

    def __init__(self, endpoint: str, now: ColumnElement[float]) -> None:
        self.endpoint = endpoint
        self._now = now
        holds_any = select(_H.user_id).where(_H.endpoint == endpoint).exists()
        clock = select(now.label("now")).subquery()
        self._fetch = select(
            clock.c.now, holds_any, _C.state, _C.failures, _C.retry_at, _C.reason, _C.opened_at, _C.refusing_since
        ).select_from(clock.outerjoin(_C, _C.endpoint == endpoint))

    def fetch(self, session: Session, users: Collection[str] = ()) -> EndpointSnapshot:
        """Return the endpoint's state, including the holds on `users`."""
        return self._snapshot(session, session.execute(self._fetch).one(), users)

    def lock(self, session: WriteTransaction, users: Collection[str] = ()) -> EndpointSnapshot:
        """Lock the endpoint's row until the transaction ends, and return the endpoint's state."""
        never_opened = upsert(session, _C).values(endpoint=self.endpoint, state=CircuitState.CLOSED, failures=0)
        session.execute(never_opened.on_conflict_do_nothing())
        session.execute(select(_C.endpoint).where(_C.endpoint == self.endpoint).with_for_update()).all()
        return self.fetch(session, users)

    def save(self, session: WriteTransaction, before: EndpointState, after: EndpointState) -> None:
        """Write the changes between two states, under `lock`, and wake the dispatchers if the circuit is closed."""
        if after.circuit != before.circuit:
            self._save_circuit(session, after.circuit)
            if after.circuit.is_closed and before.circuit.refusing_since is not None:
                self._unpark(session, before.circuit.refusing_since)
        for user_id in sorted(before.holds.keys() | after.holds.keys()):
            hold = after.holds.get(user_id)
            if hold is None:
                self._release(session, user_id)
            elif hold != before.holds.get(user_id):
                self._hold(session, user_id, hold)
        if after.circuit.is_closed:
            session.notify(Topic.MESSAGES)

    def take_probe(self, session: WriteTransaction, lease: float) -> bool:
        """Take the probe that is due, leased for `lease` seconds; return whether this dispatcher got it."""
        row = session.execute(
            update(_C)
            .where(_C.endpoint == self.endpoint, _C.state != CircuitState.CLOSED, self._is_due(_C.retry_at))
            .values(state=CircuitState.HALF_OPEN, retry_at=self._now + lease)
            .returning(_C.endpoint)
            .execution_options(synchronize_session=False)
        ).first()
        return row is not None

    def probe_now(self, session: WriteTransaction) -> None:
        """Make the next probe due now, because the last one was not sent or a person asked for it."""
        session.execute(
            update(_C)
            .where(_C.endpoint == self.endpoint, _C.state != CircuitState.CLOSED)
            .values(state=CircuitState.OPEN, retry_at=self._now)
            .execution_options(synchronize_session=False)
        )

    def take_user_probes(
        self, session: WriteTransaction, lease: float, limit: int, *, user_id: str | None = None
    ) -> Sequence[str]:
        """Take the probes of up to `limit` held users who have a message due; return the users' ids.

        Each probe is leased for `lease` seconds. `user_id` limits the call to that user. Expired holds on users
        without waiting messages are deleted.
        """
        session.execute(
            delete(_H)
            .where(_H.endpoint == self.endpoint, self._is_due(_H.until), _FIRST_DUE.is_(None))
            .execution_options(synchronize_session=False)
        )
        due = (
            select(_H.user_id)
            .where(
                _H.endpoint == self.endpoint,
                self._is_due(_H.until),
                self._now >= _FIRST_DUE,
                true() if user_id is None else _H.user_id == user_id,
            )
            .order_by(_H.until)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        taken = session.scalars(
            update(_H)
            .where(_H.endpoint == self.endpoint, _H.user_id.in_(due))
            .values(until=self._now + lease)
            .returning(_H.user_id)
            .execution_options(synchronize_session=False)
        )
        return list(taken)

    def next_user_probe_in(self, session: Session) -> float | None:
        """Return the seconds until a held user with a due message may be probed; None without such a user."""
        until = case((self._is_due(_H.until), self._now), else_=_H.until)
        found: float | None = session.scalar(
            select(func.min(until) - self._now).where(_H.endpoint == self.endpoint, self._now >= _FIRST_DUE)
        )
        return found

    def probe_users_now(self, session: WriteTransaction) -> None:
        """Make the probes of all held users due now, because a person asked for it."""
        session.execute(
            update(_H)
            .where(_H.endpoint == self.endpoint, _H.until > self._now)
            .values(until=self._now)
            .execution_options(synchronize_session=False)
        )

    def held_users(self, session: Session) -> Sequence[HeldUser]:
        """Return every held user with the number of waiting messages, the longest held first."""
        waiting = (
            select(func.coalesce(func.sum(OutboxStream.last_seq - OutboxStream.acked_seq), 0))
            .where(OutboxStream.user_id == _H.user_id, OutboxStream.due_at.is_not(None))
            .scalar_subquery()
        )
        rows = session.execute(
            select(_H.user_id, _H.since, _H.until, _H.failures, _H.reason, waiting)
            .where(_H.endpoint == self.endpoint)
            .order_by(_H.since, _H.user_id)
        )
        return [HeldUser(row[0], Hold(*row[1:5]), int(row[5])) for row in rows]

    def _is_due(
        self, column: InstrumentedAttribute[float | None] | InstrumentedAttribute[float]
    ) -> ColumnElement[bool]:
        return or_(column <= self._now, column > self._now + literal(LONGEST_WAIT))

    def _snapshot(self, session: Session, row: Row[*tuple[object, ...]], users: Collection[str]) -> EndpointSnapshot:
        now, holds_any, state, *rest = row
        circuit = Circuit() if state is None else Circuit(CircuitState(state), *rest)  # type: ignore[arg-type]
        holds = self._holds(session, users) if holds_any and users else {}
        return EndpointSnapshot(float(now), EndpointState(circuit, holds), bool(holds_any))  # type: ignore[arg-type]

    def _holds(self, session: Session, users: Collection[str]) -> Mapping[str, Hold]:
        rows = session.execute(
            select(_H.user_id, _H.since, _H.until, _H.failures, _H.reason).where(
                _H.endpoint == self.endpoint, _H.user_id.in_(users)
            )
        )
        return {row[0]: Hold(*row[1:]) for row in rows}

    def _save_circuit(self, session: WriteTransaction, circuit: Circuit) -> None:
        session.execute(
            update(_C)
            .where(_C.endpoint == self.endpoint)
            .values(
                state=circuit.state,
                failures=circuit.failures,
                retry_at=circuit.retry_at,
                reason=circuit.reason,
                opened_at=circuit.opened_at,
                refusing_since=circuit.refusing_since,
            )
            .execution_options(synchronize_session=False)
        )

    def _hold(self, session: WriteTransaction, user_id: str, hold: Hold) -> None:
        values = {"since": hold.since, "until": hold.until, "failures": hold.failures, "reason": hold.reason}
        new = upsert(session, _H).values(endpoint=self.endpoint, user_id=user_id, **values)
        session.execute(new.on_conflict_do_update(index_elements=[_H.endpoint, _H.user_id], set_=values))

    def _release(self, session: WriteTransaction, user_id: str) -> None:
        session.execute(
            delete(_H)
            .where(_H.endpoint == self.endpoint, _H.user_id == user_id)
            .execution_options(synchronize_session=False)
        )

    def _unpark(self, session: WriteTransaction, since: float) -> None:
        """Unpark the streams parked while the endpoint refused every message."""
        session.execute(
            update(OutboxStream)
            .where(OutboxStream.parked_at >= since)
            .values(
                due_at=self._now,
                parked_at=null(),
                park_reason=null(),
                failures=0,
                counted_attempts=0,
                refused_since=null(),
            )
            .execution_options(synchronize_session=False)
        )
