"""The furthest times that the outbox schedules; a time further ahead was written before the clock was set back.

`app.outbox.circuit_breaker` bounds the times of circuits and holds itself.
"""

from app.database.time_bounds import TimeBound
from app.outbox.circuit import LONGEST_WAIT
from app.outbox.statements import STREAM, STREAM_LEASE

LONGEST_LEASE = 30.0
"""The longest lease of a stream, in seconds."""

OUTBOX_BOUNDS = (
    TimeBound(STREAM.c.due_at, LONGEST_WAIT, among=STREAM.c.lease_owner.is_(None)),
    STREAM_LEASE.bound(LONGEST_LEASE),
)
