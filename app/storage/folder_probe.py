"""Probes whether the media folders can publish files, and caches the result for some seconds.

A probe syncs a file and a folder, so a request without a token (`/readyz`) must not cause one each time.
"""

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.storage.file_systems import missing_for_publishing

PROBE_SECONDS = 5.0
"""How long a result is valid."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of a probe: what the file system lacks, or why the disk failed; neither if the folder can be used.

    A full disk is not reported here; uploads get StorageFull.
    """

    missing: str | None = None
    error: str | None = None


class FolderProbe:
    """Probes one folder with its `.incoming/`. Thread-safe."""

    def __init__(self, folder: Path, incoming: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._incoming = incoming
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._probed_at = float("-inf")
        self._result = ProbeResult()

    def result(self, max_age: float = PROBE_SECONDS) -> ProbeResult:
        """Probe the folder, unless it succeeded within `max_age` seconds or another thread is probing it."""
        is_old = self._result.error is not None or self._monotonic() - self._probed_at >= max_age
        if is_old and self._lock.acquire(blocking=False):
            try:
                self._result = self._probe()
                self._probed_at = self._monotonic()
            finally:
                self._lock.release()
        return self._result

    def missing(self) -> str | None:
        """Return what the folder lacks, probing again if it lacked something; free of cost otherwise."""
        return self.result().missing if self._result.missing else None

    def _probe(self) -> ProbeResult:
        try:
            return ProbeResult(missing=missing_for_publishing(self._folder, self._incoming))
        except OSError as error:
            return ProbeResult(error=None if error.errno in _FULL else error.strerror)
