"""The Retry-After header: seconds or a date, and whatever else a server may put there."""

from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_SECONDS = 3600.0
LONGEST_SENSIBLE = 64


def retry_after_seconds(value: str | None, date: str | None, now: float) -> float | None:
    """Seconds to wait, 0 to 3600, or None where the header is missing, in the past or nonsense.

    A date is measured against the answer's own `Date` header, so that neither side's wrong clock matters; against
    `now` (seconds since the epoch) where there is none.
    """
    text = (value or "").strip()[:LONGEST_SENSIBLE]
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_SECONDS)
    until = _timestamp(text)
    if until is None:
        return None
    said = _timestamp((date or "").strip())
    wait = until - (now if said is None else said)
    return min(wait, MAX_SECONDS) if wait >= 0 else None


def _timestamp(text: str) -> float | None:
    if not text or len(text) > LONGEST_SENSIBLE:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
