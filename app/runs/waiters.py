"""Waits for runs to end: notified if this process ends the run, by polling if another process does."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from app.database import Database, Queries
from app.database.models import RunState
from app.runs.statements import STATE

POLL_SECONDS = 0.25
"""Time between two polls."""

ENDING_SECONDS = 5.0
"""How long a process that is about to end still waits; the server gives it about half a minute for everything."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """A waiting caller; `notified` is set when this process stops working on the run."""

    notified: threading.Event = field(default_factory=threading.Event)
    has_ended: bool = False


class RunWaiters:
    """The callers of one process that wait for runs to end. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._queries = Queries(database)
        self._guard = threading.Lock()
        self._waiting: dict[int, set[_Waiter]] = {}

    def notify(self, run_id: int, has_ended: bool) -> None:
        """Wake the callers that wait for a run, because this process stopped working on it or ended it."""
        with self._guard:
            for waiter in self._waiting.get(run_id, ()):
                waiter.has_ended = has_ended
                waiter.notified.set()

    def wait(self, run_id: int, seconds: float, is_serving: Callable[[], bool] = lambda: True) -> bool:
        """Wait until the run has ended; return False after `seconds`, or soon after `is_serving()` turns False."""
        deadline, is_ending = time.monotonic() + seconds, False
        with self._waiter(run_id) as waiter:
            while not (waiter.has_ended or self._has_ended(run_id)):
                if not is_ending and not is_serving():
                    is_ending, deadline = True, min(deadline, time.monotonic() + ENDING_SECONDS)
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                waiter.notified.wait(min(left, POLL_SECONDS))
                waiter.notified.clear()
        return True

    def _has_ended(self, run_id: int) -> bool:
        state = self._queries.fetch(_state, run_id)
        return state is None or state in (RunState.DONE, RunState.FAILED)

    @contextmanager
    def _waiter(self, run_id: int) -> Iterator[_Waiter]:
        waiter = _Waiter()
        with self._guard:
            self._waiting.setdefault(run_id, set()).add(waiter)
        try:
            yield waiter
        finally:
            with self._guard:
                self._waiting[run_id].discard(waiter)
                if not self._waiting[run_id]:
                    del self._waiting[run_id]


def _state(session: Session, run_id: int) -> str | None:
    return session.scalar(STATE, {"run": run_id})
