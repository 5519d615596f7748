"""The branch of an id that has a row: the same bytes are a duplicate, other bytes a collision.

This module begins transactions.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import bindparam, select

from app.database import Database, Queries, ReadTransaction
from app.database.models import Media
from app.errors import DetectionsError, MediaIdCollision, StorageFailed
from app.ingest.candidate import Candidate
from app.media.status import keep_checksum
from app.storage import open_stored, sync_folder

log = structlog.get_logger()

_IS_RECORDED = select(Media.id).where(Media.id == bindparam("id"))


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The media as recorded; `duplicate` says that it had been before."""

    media: Media
    duplicate: bool


def fetch_media(database: Database, media_id: str) -> Media | None:
    """The row with that id, None where there is none."""
    return Queries(database).fetch(_fetch_media, media_id)


def _fetch_media(transaction: ReadTransaction, media_id: str) -> Media | None:
    """Most uploads are new, which a statement about the table tells in a fourth of the time that `get` takes."""
    if transaction.core.scalar(_IS_RECORDED, {"id": media_id}) is None:
        return None
    return transaction.get(Media, media_id)


def find_known(database: Database, candidate: Candidate) -> IngestResult | None:
    """Compare the candidate with the file of the row that has its id; None where there is no such row.

    Raises MediaIdCollision where that file has other bytes, and StorageFailed where it cannot be read. Where it is
    missing and the candidate has its size and checksum, the candidate is put in its place; None where somebody has
    put it back meanwhile.
    """
    known = fetch_media(database, candidate.media.id)
    if known is None:
        return None
    try:
        stored = open_stored(Path(known.path), known.size_bytes)
    except StorageFailed as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        return _put_back(candidate, known, error)
    try:
        if not candidate.has_content_of(stored):
            raise _collision(known)
    finally:
        os.close(stored)
    if known.checksum is None:
        _keep_checksum(database, known, candidate.incoming.checksum)
    return IngestResult(known, duplicate=True)


def _put_back(candidate: Candidate, known: Media, missing: StorageFailed) -> IngestResult | None:
    """Give the bytes the name that their row knows, as durably as a new file gets its own.

    A run that waits for the file goes on by itself.
    """
    incoming, path = candidate.incoming, Path(known.path)
    if known.checksum is None or path.parent != incoming.folder:
        raise missing
    if (known.size_bytes, known.checksum) != (incoming.size, incoming.checksum):
        raise _collision(known)
    incoming.sync()
    if not incoming.publish(path):
        return None
    sync_folder(path.parent)
    log.info("stored_file_put_back", media_id=known.id)
    return IngestResult(known, duplicate=True)


def _keep_checksum(database: Database, known: Media, checksum: str) -> None:
    """Give a row from before checksums were kept its own: its file has just been read, and is ours byte for byte."""
    try:
        with database.write_transaction() as session:
            keep_checksum(session, known.id, checksum)
    except DetectionsError as error:  # the answer does not hang on it
        log.warning("checksum_not_kept", media_id=known.id, reason=str(error))
    else:
        known.checksum = checksum


def _collision(known: Media) -> MediaIdCollision:
    reason = (
        f"Media {known.id} ({known.name!r}, {known.size_bytes} bytes) has the same id and other content; "
        "it is untouched, and this file was not stored."
    )
    return MediaIdCollision(reason, known.id)
