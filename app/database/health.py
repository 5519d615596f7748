"""The last failure of a database as one process met it, for readiness and for the log.

Every caller meets a failure that lasts. It is logged once, again each minute, and when it is over. Damage lasts until
another file replaces the database.
"""

import threading
import time
from collections.abc import Callable

import structlog

from app.errors import DatabaseDamaged, DatabaseFailed, StorageFull

log = structlog.get_logger()

REPEAT_SECONDS = 60.0
FRESH_SECONDS = 5.0
"""How long a commit proves that the database is writable."""

Failure = DatabaseFailed | StorageFull


class DatabaseHealth:
    """The failure and the last commit of one process's database. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.is_logged = True
        """False for a command, which prints the failure itself."""
        self._guard = threading.Lock()
        self._failure: Failure | None = None
        self._logged: dict[str, float] = {}
        self._seen_at = 0.0
        self._committed_at = float("-inf")

    @property
    def failure(self) -> Failure | None:
        """The last failure; None once a commit has succeeded since, unless the failure was damage."""
        return self._failure

    @property
    def is_fresh(self) -> bool:
        """Whether a commit succeeded within FRESH_SECONDS and nothing failed since."""
        return self._failure is None and self._monotonic() - self._committed_at < FRESH_SECONDS

    @property
    def seconds_since_failure(self) -> float:
        """The seconds since the last failure."""
        return self._monotonic() - self._seen_at

    def failed(self, failure: Failure) -> None:
        """Remember a failure, and log it unless the same one was logged within the last minute."""
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
        """Forget the last commit, because a transaction could not use the database since."""
        self._committed_at = float("-inf")

    def committed(self) -> None:
        """Note a successful commit, which ends every failure but damage."""
        self._committed_at = self._monotonic()
        if self._failure is not None and not isinstance(self._failure, DatabaseDamaged):
            self.clear()

    def clear(self) -> None:
        """Forget the failure, and log that it is over."""
        with self._guard:
            before, self._failure = self._failure, None
            self._logged.clear()
        if before is not None and self.is_logged:
            log.info("database_works_again", before=str(before))
