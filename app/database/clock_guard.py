"""Notices that the database's clock was set back, by any amount: nothing waits for a time that is too far ahead.

A clock that is set forward needs nothing: what waits is due early, and an early end of a lease is fenced by its epoch.
This module begins transactions.
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
    """Enforces `bounds` every few seconds: at its first round for what was written before this process started."""

    def __init__(self, database: Database, bounds: Sequence[TimeBound], *, every: float = CHECK_SECONDS) -> None:
        super().__init__("clock-guard", pause=every)
        self._database = database
        self._bounds = bounds

    def work(self) -> None:
        """Look, and correct what lies too far ahead.

        A database that is away is looked at in the next round: /readyz and the log tell of it without this.
        """
        with suppress(DetectionsError, DBAPIError):
            if not Queries(self._database).fetch(any_exceeded, self._database.now, self._bounds):
                return
            with self._database.write_transaction() as session:
                corrected = enforce(session, self._database.now, self._bounds)
                for topic in Topic:
                    session.notify(topic)
            log.warning("clock_was_set_back", rescheduled=corrected)
