"""The states of checksums between two parts of an upload, so that a file is not read again when its last part came.

Kept in this process alone, for the uploads of which it took a part last. Where the next part goes to another process,
or to this one after a restart, the file is read once at its end.
"""

import threading
from collections import OrderedDict

from xxhash import xxh3_128

MOST = 1000
"""A state takes some hundred bytes."""


class ChecksumStates:
    """Safe to use from several threads."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._states: OrderedDict[str, tuple[int, xxh3_128]] = OrderedDict()
        self._guard = threading.Lock()

    def keep(self, upload_id: str, size: int, digest: xxh3_128 | None) -> None:
        """The first `size` bytes of the upload are in that digest; with None nothing is known of it any more."""
        with self._guard:
            self._states.pop(upload_id, None)
            if digest is not None:
                self._states[upload_id] = size, digest
            if len(self._states) > self._most:
                self._states.popitem(last=False)

    def take(self, upload_id: str, size: int) -> xxh3_128 | None:
        """The digest of the upload's first `size` bytes, which is the caller's to go on with; None where it is not
        here."""
        with self._guard:
            kept, digest = self._states.pop(upload_id, (-1, None))
        return digest if kept == size else None
