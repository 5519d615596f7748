"""How far ahead of the database's clock a stored time can lie, and how one that lies further ahead is corrected.

Such a time was written while the clock was ahead, and the clock has been set back since. A wait becomes due at once. A
lease becomes one that begins now, because its owner may be alive: a living owner renews it or ends it, and the lease of
a dead one runs out in its usual time. Nothing here begins or commits a transaction.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, literal, select, update
from sqlalchemy.orm import Session

from app.database.transactions import WriteTransaction


@dataclass(frozen=True, slots=True)
class TimeBound:
    """`column` holds times at most `longest` seconds ahead in rows that are `among`; `lease` says that it is one."""

    column: Column[float | None]
    longest: float
    lease: bool = False
    among: ColumnElement[bool] | None = None

    def exceeded(self, now: float) -> ColumnElement[bool]:
        """Whether a row's time lies too far ahead of `now`, in seconds since 1970; an index condition."""
        too_far = self.column > literal(now + self.longest)
        return too_far if self.among is None else too_far & self.among

    def corrected(self, now: float) -> float:
        """The time that such a row gets."""
        return now + self.longest if self.lease else now


def any_exceeded(session: Session, clock: ColumnElement[float], bounds: Iterable[TimeBound]) -> bool:
    """Whether any row lies beyond one of the bounds: one search of an index for each."""
    now = session.scalars(select(clock)).one()
    return any(
        session.execute(select(literal(1)).select_from(bound.column.table).where(bound.exceeded(now)).limit(1)).first()
        for bound in bounds
    )


def enforce(session: WriteTransaction, clock: ColumnElement[float], bounds: Iterable[TimeBound]) -> int:
    """Correct every row that lies beyond one of the bounds, in the caller's transaction; returns how many did."""
    now = session.scalars(select(clock)).one()
    corrected = 0
    for bound in bounds:
        statement = (
            update(bound.column.table)
            .where(bound.exceeded(now))
            .values({bound.column: bound.corrected(now)})
            .returning(literal(1))
        )
        corrected += len(session.execute(statement).all())
    return corrected
