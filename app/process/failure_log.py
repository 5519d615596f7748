"""Logs failures of background work: each once, and once a minute while it repeats."""

import threading
import time
from collections.abc import Callable

import structlog

from app.errors import DetectionsError

log = structlog.get_logger()

REPEAT_SECONDS = 60.0


class FailureLog:
    """Logs the failures of one loop, or of several with the same work, as `event` with `fields`. Thread-safe."""

    def __init__(self, event: str, *, monotonic: Callable[[], float] = time.monotonic, **fields: object) -> None:
        self._event = event
        self._fields = fields
        self._monotonic = monotonic
        self._last: tuple[type[BaseException], str] | None = None
        self._logged_at = 0.0
        self._unlogged = 0
        self._guard = threading.Lock()

    def failed(self, error: Exception, *, expected: bool = False) -> None:
        """Log a failure, unless the same was logged within the last minute.

        The traceback is logged unless the failure is `expected` or a DetectionsError.
        """
        this = type(error), str(error)
        with self._guard:
            now = self._monotonic()
            if this == self._last and now - self._logged_at < REPEAT_SECONDS:
                self._unlogged += 1
                return
            fields = self._fields | ({"repeated": self._unlogged} if self._unlogged else {})
            self._last, self._logged_at, self._unlogged = this, now, 0
        if expected or isinstance(error, DetectionsError):
            log.error(self._event, reason=str(error), **fields)
        else:
            log.error(self._event, exc_info=error, **fields)

    def succeeded(self) -> None:
        """Note a success, so that the next failure is logged at once."""
        if self._last is not None:
            with self._guard:
                self._last, self._unlogged = None, 0
