"""The gate: one endpoint's condition, shared by every dispatcher and kept across restarts.

While it is closed nothing is sent but one probe at a time. The prober takes its turn by moving `closed_until` on in
one UPDATE, so of several dispatchers just one wins, and one that dies with its probe only costs that much time.
Nothing here begins or commits a transaction.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, null, select, update
from sqlalchemy.orm import Session

from app.db import News, announce, upsert
from app.models import OutboxGate


@dataclass(frozen=True, slots=True)
class GateCondition:
    """`closed_for` is the seconds until the next probe may go, None where the gate is open."""

    closed_for: float | None = None
    failures: int = 0
    reason: str | None = None

    @property
    def is_open(self) -> bool:
        return self.closed_for is None


class Gate:
    """The gate of one endpoint. `now` is the database's clock as an SQL expression."""

    def __init__(self, endpoint: str, now: ColumnElement[float]) -> None:
        self.endpoint = endpoint
        self._now = now

    def condition(self, session: Session) -> GateCondition:
        """How the gate stands; one never closed is open."""
        row = session.execute(
            select(OutboxGate.closed_until - self._now, OutboxGate.failures, OutboxGate.reason).where(
                OutboxGate.endpoint == self.endpoint
            )
        ).first()
        return GateCondition(*row) if row else GateCondition()

    def hold(self, session: Session) -> GateCondition:
        """How the gate stands, and will until this transaction ends: no other dispatcher judges it meanwhile."""
        never_closed = upsert(session, OutboxGate).values(endpoint=self.endpoint, state="open", failures=0)
        session.execute(never_closed.on_conflict_do_nothing())
        session.execute(select(OutboxGate.endpoint).where(OutboxGate.endpoint == self.endpoint).with_for_update()).all()
        return self.condition(session)

    def take_probe(self, session: Session, lease: float) -> bool:
        """Win the right to send one probe, if it is time for one; the next may go `lease` seconds from now."""
        row = session.execute(
            update(OutboxGate)
            .where(OutboxGate.endpoint == self.endpoint, OutboxGate.closed_until <= self._now)
            .values(closed_until=self._now + lease)
            .returning(OutboxGate.endpoint)
            .execution_options(synchronize_session=False)
        ).first()
        return row is not None

    def close(self, session: Session, *, failures: int, delay: float, reason: str) -> None:
        """Nothing passes for `delay` seconds; `failures` is how often in a row it has been closed."""
        values = {
            "state": "closed",
            "failures": failures,
            "closed_until": self._now + delay,
            "reason": reason,
        }
        new = upsert(session, OutboxGate).values(endpoint=self.endpoint, **values)
        session.execute(new.on_conflict_do_update(index_elements=[OutboxGate.endpoint], set_=values))

    def open(self, session: Session) -> None:
        """Everything passes again, at full speed, and every dispatcher is told."""
        announce(session.connection(), News.MESSAGES)
        session.execute(
            update(OutboxGate)
            .where(OutboxGate.endpoint == self.endpoint)
            .values(state="open", failures=0, closed_until=null(), reason=null())
            .execution_options(synchronize_session=False)
        )

    def probe_now(self, session: Session) -> None:
        """Let the next probe go at once, because a person asked."""
        session.execute(
            update(OutboxGate)
            .where(OutboxGate.endpoint == self.endpoint, OutboxGate.closed_until > self._now)
            .values(closed_until=self._now)
            .execution_options(synchronize_session=False)
        )
