"""Parses the Retry-After header, which has seconds or a date."""

from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_SECONDS = 3600.0
MAX_HEADER_LENGTH = 64


def retry_after_seconds(value: str | None, date: str | None, now: float) -> float | None:
    """Return the seconds to wait, 0 to 3600; None if the header is missing, malformed or in the past.

    A date counts from the response's `Date` header, so that a wrong clock does not matter, or else from `now`, in
    seconds since 1970.
    """
    text = (value or "").strip()[:MAX_HEADER_LENGTH]
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_SECONDS)
    until = _timestamp(text)
    if until is None:
        return None
    sent_at = _timestamp((date or "").strip())
    wait = until - (now if sent_at is None else sent_at)
    return min(wait, MAX_SECONDS) if wait >= 0 else None


def _timestamp(text: str) -> float | None:
    if not text or len(text) > MAX_HEADER_LENGTH:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
