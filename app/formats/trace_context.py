"""Trace Context of the W3C: the header `traceparent`, by which tracing systems join the requests of several services.

Source: https://www.w3.org/TR/trace-context/, version 00.
"""

import hashlib
import re

HEADER = "traceparent"
_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_RECEIVED = re.compile(r"(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id_of(traceparent: str) -> str | None:
    """Return the trace id, 32 hex digits, of a received header; None if the header is malformed."""
    found = _RECEIVED.fullmatch(traceparent)
    if found is None or (traceparent.startswith("00") and found[2]):
        return None
    return found["trace"]


def traceparent_of(request_id: str, span: str) -> str:
    """Return the header for a request on behalf of another one.

    A `request_id` of 32 hex digits is the trace id itself; any other leads to one that is always the same. `span` names
    this request; a repetition of it has the same. The flag says "sampled", because the caller's flag is not kept.
    """
    trace_id = request_id if _ID.fullmatch(request_id) else _digest(request_id, 16)
    return f"00-{trace_id}-{_digest(span, 8)}-01"


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()
