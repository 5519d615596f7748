"""Converts seconds to the `struct timeval` of the socket options SO_RCVTIMEO and SO_SNDTIMEO."""

import struct

_TIMEVAL = struct.Struct("ll")

TIMEVAL_BYTES = _TIMEVAL.size


def timeval(seconds: float) -> bytes:
    """Pack seconds as a timeval, with microseconds."""
    whole = int(seconds)
    return _TIMEVAL.pack(whole, int((seconds - whole) * 1_000_000))
