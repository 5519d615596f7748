"""Handles an upload whose id is recorded: the same content is a duplicate, other content a collision.

This module begins transactions.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.database import Database, Queries, ReadTransaction
from app.database.models import Media
from app.errors import DetectionsError, MediaIdCollision, StorageFailed
from app.ingest.candidate import Candidate
from app.media.status import record_checksum
from app.storage import open_stored, sync_folder

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The media item as recorded; `duplicate` if it existed before the upload."""

    media: Media
    duplicate: bool


def fetch_media(database: Database, media_id: str) -> Media | None:
    """Return the row with that id, or None."""
    return Queries(database).fetch(_get_media, media_id)


def _get_media(transaction: ReadTransaction, media_id: str) -> Media | None:
    return transaction.get(Media, media_id)


def find_duplicate(database: Database, candidate: Candidate) -> IngestResult | None:
    """Compare the candidate with the stored file of its id. Return None if the id has no row.

    Raises MediaIdCollision if the content differs, and StorageFailed if the stored file cannot be read. If the stored
    file is missing and the candidate has its size and checksum, the candidate replaces it; None if another upload did
    so first.
    """
    known = fetch_media(database, candidate.media.id)
    if known is None:
        return None
    try:
        stored = open_stored(Path(known.path), known.size_bytes)
    except StorageFailed as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        return _restore_file(candidate, known, error)
    try:
        if not candidate.has_content_of(stored):
            raise _collision(known)
    finally:
        os.close(stored)
    if known.checksum is None:
        _record_checksum(database, known, candidate.incoming.checksum)
    return IngestResult(known, duplicate=True)


def _restore_file(candidate: Candidate, known: Media, missing: StorageFailed) -> IngestResult | None:
    """Publish the candidate under the path of the row whose file is missing, as durably as a new file.

    A run that waits for the file then continues.
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


def _record_checksum(database: Database, known: Media, checksum: str) -> None:
    """Record the checksum of a row that has none; its file was just compared byte by byte."""
    try:
        with database.write_transaction() as session:
            record_checksum(session, known.id, checksum)
    except DetectionsError as error:  # the upload's answer does not depend on the checksum
        log.warning("checksum_not_kept", media_id=known.id, reason=str(error))
    else:
        known.checksum = checksum


def _collision(known: Media) -> MediaIdCollision:
    reason = (
        f"Media {known.id} ({known.name!r}, {known.size_bytes} bytes) has the same id but other content; "
        "it is unchanged, and this file was not stored."
    )
    return MediaIdCollision(reason, known.id)
