"""How far ahead the outbox schedules a stream: what is further ahead was written before the clock was set back.

The circuit breaker and the holds on users see to their own times (`app.outbox.circuit_breaker`).
"""

from app.database.models import OutboxStream
from app.database.time_bounds import TimeBound
from app.outbox.circuit import LONGEST_WAIT

LONGEST_LEASE = 30.0
"""Seconds that a stream is leased for at most."""

OUTBOX_BOUNDS = (
    TimeBound(OutboxStream.due_at, LONGEST_WAIT, among=OutboxStream.lease_owner.is_(None)),
    TimeBound(OutboxStream.due_at, LONGEST_LEASE, lease=True, among=OutboxStream.lease_owner.is_not(None)),
)
