"""How times are written wherever a person or a program reads them."""

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """A time in seconds since 1970 as RFC 3339, in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def optional_rfc3339(seconds: float | None) -> str | None:
    """The same; None stays None."""
    return None if seconds is None else rfc3339(seconds)
