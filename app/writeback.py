"""Writing to the disk begun while more bytes come, so that the sync at the end finds little left to do.

The kernel leaves what is written in memory until much of that is taken, and an upload's sync then waits for all of it
at once. Begun early, the disk works beside the network. Nothing is promised by it: errors are told by the sync, as
ever, and where the system has no such call the bytes are written at the sync.
"""

import ctypes
from collections.abc import Callable

EVERY_BYTES = 8 << 20
"""Large enough that the calls cost nothing, small enough that a disk has work from the first megabytes on."""

Begin = Callable[[int, int, int], object]
"""Called with a descriptor, an offset and a length, in bytes; must not wait for the disk."""

_START_WRITE = 2
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux alone has it
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


def begin_writing(fd: int, offset: int, length: int) -> None:
    """Have that part of a file written soon; whether it could be is for a sync to say."""
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _START_WRITE)


class Writeback:
    """The writing of one file that only grows, from `size` bytes on."""

    def __init__(self, fd: int, size: int = 0, *, begin: Begin = begin_writing) -> None:
        self._fd = fd
        self._begin = begin
        self._begun = size

    def grown_to(self, size: int) -> None:
        """Have what came since the last time written, if it is enough to be worth a call."""
        if size - self._begun >= EVERY_BYTES:
            self._begin(self._fd, self._begun, size - self._begun)
            self._begun = size
