"""Checksum states between the parts of an upload, so that a complete file need not be read again.

They are kept in this process only. If the next part goes to another process, or this one restarts, the file is read
once at its end.
"""

import threading
from collections import OrderedDict

from xxhash import xxh3_128

MAX_STATES = 1000
"""A state takes some hundred bytes."""


class ChecksumStates:
    """The most recently used states. Thread-safe."""

    def __init__(self, limit: int = MAX_STATES) -> None:
        self._limit = limit
        self._states: OrderedDict[str, tuple[int, xxh3_128]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, upload_id: str, size: int, digest: xxh3_128 | None) -> None:
        """Store the digest of the upload's first `size` bytes; None removes it."""
        with self._lock:
            self._states.pop(upload_id, None)
            if digest is not None:
                self._states[upload_id] = size, digest
            if len(self._states) > self._limit:
                self._states.popitem(last=False)

    def take(self, upload_id: str, size: int) -> xxh3_128 | None:
        """Remove and return the digest of the upload's first `size` bytes, or None if it is not stored."""
        with self._lock:
            stored_size, digest = self._states.pop(upload_id, (-1, None))
        return digest if stored_size == size else None
