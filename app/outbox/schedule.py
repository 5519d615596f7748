"""How far ahead the outbox schedules anything: what is further ahead was written before the clock was set back."""

from app.models import OutboxGate, OutboxStream
from app.retry_after import MAX_SECONDS
from app.time_bounds import TimeBound

LONGEST_WAIT = MAX_SECONDS + 60.0
"""Seconds. No wait is longer than a Retry-After; the minute keeps a clock that is only adjusted from ending one."""

LONGEST_LEASE = 30.0
"""Seconds that a stream is leased for at most."""

OUTBOX_BOUNDS = (
    TimeBound(OutboxStream.due_at, LONGEST_WAIT, among=OutboxStream.lease_owner.is_(None)),
    TimeBound(OutboxStream.due_at, LONGEST_LEASE, lease=True, among=OutboxStream.lease_owner.is_not(None)),
    TimeBound(OutboxGate.closed_until, LONGEST_WAIT),
)
