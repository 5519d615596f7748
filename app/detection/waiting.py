"""Waiting for a run to end: at once where this process ends it, by looking now and then where another does."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.db import Database
from app.detection.statements import STATE
from app.models import RunState

LOOK_EVERY = 0.25
ENDING_SECONDS = 5.0
"""How long a process that is about to end still waits: a server gives it some half a minute for all that it does."""


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

    def wait(self, run_id: int, seconds: float, is_serving: Callable[[], bool] = lambda: True) -> bool:
        """Return when the run has ended, or when the time is up (False): soon, once this process serves no longer."""
        deadline, is_ending = time.monotonic() + seconds, False
        with self._event(run_id) as event:
            while not self._has_ended(run_id):
                if not is_ending and not is_serving():
                    is_ending, deadline = True, min(deadline, time.monotonic() + ENDING_SECONDS)
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                event.wait(min(left, LOOK_EVERY))
                event.clear()
        return True

    def _has_ended(self, run_id: int) -> bool:
        row = self._database.look_up(STATE, {"run": run_id})
        return row is None or row[0] in (RunState.DONE, RunState.FAILED)

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
