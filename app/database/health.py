"""What keeps a database from being used, as one process has last seen it: for readiness, and for the log.

A failure that lasts meets every caller. It is logged once, again each minute while it lasts, and once more when it is
over; damage lasts until another file has come to the database's place.
"""

import threading
import time
from collections.abc import Callable

import structlog

from app.errors import DatabaseDamaged, DatabaseFailed, StorageFull

log = structlog.get_logger()

REPEAT_SECONDS = 60.0
FRESH_SECONDS = 5.0
"""For so long a commit shows that the database can be written."""

Failure = DatabaseFailed | StorageFull


class DatabaseHealth:
    """Safe to use from several threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.is_logged = True
        """False for a command that ends with what it met."""
        self._guard = threading.Lock()
        self._failure: Failure | None = None
        self._logged: dict[str, float] = {}
        self._seen_at = 0.0
        self._committed_at = float("-inf")

    @property
    def failure(self) -> Failure | None:
        """The last failure; None once a commit has succeeded since, unless it was damage."""
        return self._failure

    @property
    def is_fresh(self) -> bool:
        """Whether a commit has succeeded, and nothing failed since, within FRESH_SECONDS."""
        return self._failure is None and self._monotonic() - self._committed_at < FRESH_SECONDS

    @property
    def seconds_since_failure(self) -> float:
        """How long ago the last failure was met."""
        return self._monotonic() - self._seen_at

    def failed(self, failure: Failure) -> None:
        """Remember a failure, and log it unless the same was logged within the last minute."""
        with self._guard:
            now = self._seen_at = self._monotonic()
            if isinstance(self._failure, DatabaseDamaged):
                failure = self._failure
            self._failure = failure
            if now - self._logged.get(str(failure), float("-inf")) < REPEAT_SECONDS:
                return
            self._logged[str(failure)] = now
        if self.is_logged:
            log.error("database_failed", reason=str(failure), advice=getattr(failure, "advice", None))

    def forget_last_commit(self) -> None:
        """Somebody could not use the database: what a commit has shown before is shown no more."""
        self._committed_at = float("-inf")

    def committed(self) -> None:
        """A commit has succeeded: whatever failed before, but for damage, is over."""
        self._committed_at = self._monotonic()
        if self._failure is not None and not isinstance(self._failure, DatabaseDamaged):
            self.clear()

    def clear(self) -> None:
        """What failed before is over."""
        with self._guard:
            before, self._failure = self._failure, None
            self._logged.clear()
        if before is not None and self.is_logged:
            log.info("database_works_again", before=str(before))
