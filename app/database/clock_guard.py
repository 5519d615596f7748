"""Corrects stored times that lie too far ahead because the database's clock was set back.

A clock that is set forward needs no correction: streams are due early, and leases that expire early are fenced by their
epochs. This module begins transactions.
"""

from collections.abc import Sequence
from contextlib import suppress

import structlog
from sqlalchemy.exc import DBAPIError

from app.database.engine import Database
from app.database.queries import Queries
from app.database.time_bounds import TimeBound, any_exceeded, enforce
from app.database.transactions import Topic
from app.errors import DetectionsError
from app.process.background import BackgroundWork

log = structlog.get_logger()

CHECK_SECONDS = 5.0


class ClockGuard(BackgroundWork):
    """Enforces `bounds` at its start and then every `every` seconds."""

    def __init__(self, database: Database, bounds: Sequence[TimeBound], *, every: float = CHECK_SECONDS) -> None:
        super().__init__("clock-guard", pause=every)
        self._database = database
        self._bounds = bounds

    def work(self) -> None:
        """Correct times that exceed a bound. /readyz and the log report an unreachable database."""
        with suppress(DetectionsError, DBAPIError):
            if not Queries(self._database).fetch(any_exceeded, self._database.now, self._bounds):
                return
            with self._database.write_transaction() as session:
                corrected = enforce(session, self._database.now, self._bounds)
                for topic in Topic:
                    session.notify(topic)
            log.warning("clock_was_set_back", rescheduled=corrected)
