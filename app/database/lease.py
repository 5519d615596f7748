"""Leases on rows: one process at a time works on a row, until a time on the database's clock.

A claim sets the row's owner, increments its epoch and sets its end. The owner renews the end or releases the row; after
the end any process may claim it. Every write about the work is fenced by the epoch, so an owner that was frozen or cut
off changes nothing. A lease is SQL about three columns; claims and releases may set others beside them.
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
"""Renewals within the length of a lease, if the work may outlast it."""

_ONE = literal_column("1", Integer())


def new_owner() -> str:
    """Return a unique name of a lease owner: host, process id and eight random hex digits."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True)
class Lease:
    """The columns of a lease: its owner, its epoch and its end."""

    owner: Column[str | None]
    epoch: Column[int]
    until: Column[float | None]

    def claim(self, now: ColumnElement[float], *, is_new: bool = False) -> dict[str, Any]:
        """Return the column values of a claim, or of a new row (`is_new`). Parameters: owner; lease, in seconds."""
        epoch = FIRST_EPOCH if is_new else self.epoch + _ONE
        return {self.owner.key: bindparam("owner"), self.epoch.key: epoch, self.until.key: self.end(now)}

    def end(self, now: ColumnElement[float]) -> ColumnElement[float]:
        """Return the end of a lease that begins now. Parameter: lease, in seconds."""
        return now + bindparam("lease", type_=Double())

    def renew(self, now: ColumnElement[float], seconds: float) -> dict[str, Any]:
        """Return the column values of a renewal for `seconds`."""
        return {self.until.key: now + seconds}

    def release(self) -> dict[str, Any]:
        """Return the column values of a release."""
        return {self.owner.key: null(), self.until.key: null()}

    def fence(self, epoch: ColumnElement[int] | int) -> ColumnElement[bool]:
        """Return the condition that the claim of `epoch` is the last one and not released.

        An expired lease still holds until another process claims the row.
        """
        return and_(self.epoch == epoch, self.owner.is_not(None))

    def runs(self, now: ColumnElement[float]) -> ColumnElement[bool]:
        """Return the condition that the row is leased and the lease has not expired."""
        return and_(self.owner.is_not(None), self.until > now)

    def has_run_out(self, now: ColumnElement[float]) -> ColumnElement[bool]:
        """Return the condition that the row's lease has expired, as an index condition on its end."""
        return self.until <= now

    def bound(self, longest: float) -> TimeBound:
        """Return the bound of the lease's end. A lease that ends later begins anew, because its owner may be alive."""
        return TimeBound(self.until, longest, lease=True, among=self.owner.is_not(None))
