"""Seconds as the kernel's socket options SO_RCVTIMEO and SO_SNDTIMEO take them: a `struct timeval`."""

import struct

_TIMEVAL = struct.Struct("ll")

TIMEVAL_BYTES = _TIMEVAL.size


def timeval(seconds: float) -> bytes:
    """Pack a time of whole and millionth seconds."""
    whole = int(seconds)
    return _TIMEVAL.pack(whole, int((seconds - whole) * 1_000_000))
