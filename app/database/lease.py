"""Leases: one process at a time works on a row, until a moment of the database's clock.

A claim gives the row an owner, the next epoch and an end. Whoever works on it renews the end, or releases the row; once
the end has passed anybody may claim it. Every write about the work is fenced by the epoch, so an owner that was frozen
or cut off changes nothing. All of it is SQL about three columns, whatever else a claim or a release sets beside them.
"""

import os
import socket
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Double, Integer, and_, bindparam, literal_column, null

from app.database.time_bounds import TimeBound

FIRST_EPOCH = 1
"""The epoch of a row's first lease."""

HEARTBEATS = 3
"""A lease is renewed so many times within its length, where the work may outlast it."""

_ONE = literal_column("1", Integer())


def new_owner() -> str:
    """A name for one owner of leases that no other has: host, process and eight random hex digits."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True)
class Lease:
    """The columns that say who works on a row, by which claim, and until when."""

    owner: Column[str | None]
    epoch: Column[int]
    until: Column[float | None]

    def claim(self, now: ColumnElement[float], *, is_new: bool = False) -> dict[str, Any]:
        """The values of a claim, of a row that is inserted with it where `is_new`. Parameters: owner; lease, in
        seconds."""
        epoch = FIRST_EPOCH if is_new else self.epoch + _ONE
        return {self.owner.key: bindparam("owner"), self.epoch.key: epoch, self.until.key: self.end(now)}

    def end(self, now: ColumnElement[float]) -> ColumnElement[float]:
        """The end of a lease that is claimed or renewed now. Parameter: lease, in seconds."""
        return now + bindparam("lease", type_=Double())

    def renew(self, now: ColumnElement[float], seconds: float) -> dict[str, Any]:
        """The values of a renewal."""
        return {self.until.key: now + seconds}

    def release(self) -> dict[str, Any]:
        """The values of a release."""
        return {self.owner.key: null(), self.until.key: null()}

    def fence(self, epoch: ColumnElement[int] | int) -> ColumnElement[bool]:
        """Whether the claim of that epoch is the one that may write about the row: it is the last, and not released.

        A lease that has run out still holds until somebody else claims the row.
        """
        return and_(self.epoch == epoch, self.owner.is_not(None))

    def runs(self, now: ColumnElement[float]) -> ColumnElement[bool]:
        """Whether the row's lease has not run out."""
        return and_(self.owner.is_not(None), self.until > now)

    def has_run_out(self, now: ColumnElement[float]) -> ColumnElement[bool]:
        """Whether the row's lease has run out, in the words that an index on its end serves."""
        return self.until <= now

    def bound(self, longest: float) -> TimeBound:
        """How far ahead a lease can end: one that ends later was written before the clock was set back, and begins
        anew, because its owner may be alive."""
        return TimeBound(self.until, longest, lease=True, among=self.owner.is_not(None))
