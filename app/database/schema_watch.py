"""Notices a database that was migrated beneath this process, or was not migrated to what this code needs.

Calls are then refused with what /readyz says, where they would fail in some statement or other, or write what a later
schema has another place for.
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
    """Looks every few seconds; `mismatch` is what is wrong, None where nothing is."""

    def __init__(self, database: Database, *, every: float = EVERY_SECONDS) -> None:
        super().__init__("schema-watch", pause=every)
        self._queries = Queries(database)
        self.mismatch: str | None = None

    def work(self) -> None:
        """Look, and log a change. A database that is away tells nothing, and is told of elsewhere."""
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
