"""Starts writing to the disk while an upload arrives, so that the final fsync finds little left to do.

The kernel keeps written data in memory, and fsync would wait for all of it at once. Writeback guarantees nothing:
errors are reported by fsync, and systems without the call write at fsync.
"""

import ctypes
from collections.abc import Callable

WRITEBACK_BYTES = 8 << 20
"""Large enough for negligible call costs, small enough to start the disk with the first megabytes."""

StartWriteback = Callable[[int, int, int], object]
"""Starts writing a part of a file: descriptor, offset and length in bytes. Must not wait for the disk."""

_START_WRITE = 2
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)  # only on Linux
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to write that part of a file soon. Errors are left to fsync."""
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _START_WRITE)


class Writeback:
    """Starts writing one append-only file, from `size` bytes on."""

    def __init__(self, fd: int, size: int = 0, *, start: StartWriteback = start_writeback) -> None:
        self._fd = fd
        self._start = start
        self._started = size

    def advance(self, size: int) -> None:
        """Start writing what was added, if it is enough to be worth a call."""
        if size - self._started >= WRITEBACK_BYTES:
            self._start(self._fd, self._started, size - self._started)
            self._started = size
