"""Short transactions on media rows outside of ingest and runs, and on shared keys.

This module begins transactions.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select, update

from app.database import Database, shared_keys
from app.database.models import Media
from app.media.status import record_checksum


def add_checksum(database: Database, media_id: str, checksum: str) -> bool:
    """Record the checksum of a media item. Return False if it already has one, which stays, or does not exist."""
    with database.write_transaction() as transaction:
        return record_checksum(transaction, media_id, checksum)


def change_paths(database: Database, paths: Mapping[str, str]) -> None:
    """Set new paths by media id, all or none. Raises IntegrityError if another item has one of them."""
    with database.write_transaction() as transaction:
        for media_id, path in paths.items():
            transaction.execute(
                update(Media).where(Media.id == media_id).values(path=path).execution_options(synchronize_session=False)
            )


def adopt(database: Database, row: Mapping[str, Any]) -> None:
    """Insert a row, created now, without any message. Raises IntegrityError if the id or the path exists."""
    with database.write_transaction() as transaction:
        created_at = transaction.scalars(select(database.now)).one()
        transaction.execute(insert(Media).values(**row, created_at=created_at))


def make_shared_key(database: Database, purpose: str) -> str:
    """Return the key that all processes share for that purpose, and create it if there is none."""
    with database.write_transaction() as transaction:
        return shared_keys.make(transaction, purpose)
