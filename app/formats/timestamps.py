"""Formats times as RFC 3339."""

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """Format seconds since 1970 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def optional_rfc3339(seconds: float | None) -> str | None:
    """Format seconds since 1970 as `rfc3339`; None stays None."""
    return None if seconds is None else rfc3339(seconds)
