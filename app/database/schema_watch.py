"""Watches for a schema that this code does not fit, before the start or after a migration beneath the process.

Calls are then refused with the reason that /readyz gives. Otherwise some statement would fail, or write what a later
schema stores elsewhere.
"""

import structlog
from sqlalchemy.exc import DBAPIError

from app.database import schema
from app.database.engine import Database
from app.database.queries import Queries
from app.errors import DetectionsError
from app.process.background import BackgroundWork

log = structlog.get_logger()

EVERY_SECONDS = 5.0


class SchemaWatch(BackgroundWork):
    """Checks every `every` seconds; `mismatch` is how the schema differs from this code's, or None."""

    def __init__(self, database: Database, *, every: float = EVERY_SECONDS) -> None:
        super().__init__("schema-watch", pause=every)
        self._queries = Queries(database)
        self.mismatch: str | None = None

    def work(self) -> None:
        """Check the schema and log a change. /readyz and the log report an unreachable database."""
        try:
            found = self._queries.fetch(schema.mismatch)
        except (DetectionsError, DBAPIError):
            return
        if found != self.mismatch:
            self.mismatch = found
            if found:
                log.error("schema_does_not_fit", reason=found)
            else:
                log.info("schema_fits_again")
