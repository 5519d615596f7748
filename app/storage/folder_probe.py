"""What the media folders' file systems were found to lack, remembered for some seconds.

A trial syncs a file and a folder, so it must not be had for the asking: `/readyz` needs no token.
"""

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.storage.file_systems import missing_for_publishing

TRIAL_SECONDS = 5.0
"""How long an outcome is good for."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one trial: what the file system lacks, or else why the disk refused; neither where the folder is fit or full,
    which whoever asks for room is told."""

    missing: str | None = None
    refused: str | None = None


class FolderTrial:
    """Of one folder, beside whose files `incoming` lies. Safe to use from several threads."""

    def __init__(self, folder: Path, incoming: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._incoming = incoming
        self._monotonic = monotonic
        self._under_way = threading.Lock()
        self._at = float("-inf")
        self._outcome = Outcome()

    def outcome(self, max_age: float = TRIAL_SECONDS) -> Outcome:
        """Try the folder, unless that succeeded in the last `max_age` seconds or is being done by somebody else."""
        is_old = self._outcome.refused is not None or self._monotonic() - self._at >= max_age
        if is_old and self._under_way.acquire(blocking=False):
            try:
                self._outcome = self._try()
                self._at = self._monotonic()
            finally:
                self._under_way.release()
        return self._outcome

    def missing(self) -> str | None:
        """Return what the folder was found to lack and lacks still; costs nothing where it was found fit."""
        return self.outcome().missing if self._outcome.missing else None

    def _try(self) -> Outcome:
        try:
            return Outcome(missing=missing_for_publishing(self._folder, self._incoming))
        except OSError as error:
            return Outcome(refused=None if error.errno in _FULL else error.strerror)
