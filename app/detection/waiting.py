"""Waiting for a run to end: at once where this process ends it, by looking now and then where another does."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select

from app.db import Database
from app.models import DetectionRun, RunState

LOOK_EVERY = 0.25


class RunWaiters:
    """Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = threading.Lock()
        self._waiting: dict[int, set[threading.Event]] = {}

    def notify(self, run_id: int) -> None:
        """This process has ended (or let go of) that run."""
        with self._guard:
            for event in self._waiting.get(run_id, ()):
                event.set()

    def wait(self, run_id: int, seconds: float) -> bool:
        """Return when the run has ended, or when the time is up (False)."""
        deadline = time.monotonic() + seconds
        with self._event(run_id) as event:
            while not self._has_ended(run_id):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                event.wait(min(left, LOOK_EVERY))
                event.clear()
        return True

    def _has_ended(self, run_id: int) -> bool:
        with self._database.reading() as session:
            state = session.scalar(select(DetectionRun.state).where(DetectionRun.id == run_id))
        return state in (RunState.DONE, RunState.FAILED, None)

    @contextmanager
    def _event(self, run_id: int) -> Iterator[threading.Event]:
        event = threading.Event()
        with self._guard:
            self._waiting.setdefault(run_id, set()).add(event)
        try:
            yield event
        finally:
            with self._guard:
                self._waiting[run_id].discard(event)
                if not self._waiting[run_id]:
                    del self._waiting[run_id]
