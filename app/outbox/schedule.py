"""How far ahead the outbox schedules a stream: what is further ahead was written before the clock was set back.

The circuit breaker and the holds on users see to their own times (`app.outbox.circuit_breaker`).
"""

from app.database.time_bounds import TimeBound
from app.outbox.circuit import LONGEST_WAIT
from app.outbox.statements import STREAM, STREAM_LEASE

LONGEST_LEASE = 30.0
"""Seconds that a stream is leased for at most."""

OUTBOX_BOUNDS = (
    TimeBound(STREAM.c.due_at, LONGEST_WAIT, among=STREAM.c.lease_owner.is_(None)),
    STREAM_LEASE.bound(LONGEST_LEASE),
)
