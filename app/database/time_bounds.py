"""Bounds on how far stored times may lie ahead of the database's clock, and their correction.

A time beyond its bound was written before the clock was set back. A wait becomes due now. A lease begins anew, because
its owner may be alive: a living owner renews or releases it, and that of a dead one expires in its usual time. Nothing
here begins or commits a transaction.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, literal, select, update
from sqlalchemy.orm import Session

from app.database.transactions import WriteTransaction


@dataclass(frozen=True, slots=True)
class TimeBound:
    """A bound: the times in `column` are at most `longest` seconds ahead, in rows that satisfy `among`.

    `lease` says that the times are ends of leases.
    """

    column: Column[float | None]
    longest: float
    lease: bool = False
    among: ColumnElement[bool] | None = None

    def exceeded(self, now: float) -> ColumnElement[bool]:
        """Return the condition that a row's time exceeds the bound at `now`, in seconds since 1970."""
        too_far = self.column > literal(now + self.longest)
        return too_far if self.among is None else too_far & self.among

    def corrected(self, now: float) -> float:
        """Return the corrected time at `now`."""
        return now + self.longest if self.lease else now


def any_exceeded(session: Session, clock: ColumnElement[float], bounds: Iterable[TimeBound]) -> bool:
    """Whether any row exceeds one of the bounds; costs one index lookup for each."""
    now = session.scalars(select(clock)).one()
    return any(
        session.execute(select(literal(1)).select_from(bound.column.table).where(bound.exceeded(now)).limit(1)).first()
        for bound in bounds
    )


def enforce(session: WriteTransaction, clock: ColumnElement[float], bounds: Iterable[TimeBound]) -> int:
    """Correct every row that exceeds one of the bounds, in the caller's transaction; return how many."""
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
