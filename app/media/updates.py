"""Small changes beside the daily course: checksums that were not kept, paths, an adopted file's row, shared keys.

This module begins transactions.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select, update

from app.database import Database, shared_keys
from app.database.models import Media
from app.media.status import keep_checksum


def record_checksum(database: Database, media_id: str, checksum: str) -> bool:
    """Keep the checksum of a media item that has none; False where it has one, which stays, or is unknown."""
    with database.write_transaction() as transaction:
        return keep_checksum(transaction, media_id, checksum)


def change_paths(database: Database, paths: Mapping[str, str]) -> None:
    """Give media items, by id, other paths, all or none; raises IntegrityError where one is another item's."""
    with database.write_transaction() as transaction:
        for media_id, path in paths.items():
            transaction.execute(
                update(Media).where(Media.id == media_id).values(path=path).execution_options(synchronize_session=False)
            )


def adopt(database: Database, row: Mapping[str, Any]) -> None:
    """Insert the row of a media item, created now, of which no message is due; raises IntegrityError where its id or
    its path is taken."""
    with database.write_transaction() as transaction:
        created_at = transaction.scalars(select(database.now)).one()
        transaction.execute(insert(Media).values(**row, created_at=created_at))


def make_shared_key(database: Database, purpose: str) -> str:
    """The key that all processes share for that purpose, made if there is none."""
    with database.write_transaction() as transaction:
        return shared_keys.make(transaction, purpose)
