"""Handles an upload whose final name is taken by a file without a row: an orphan of a crash, or a foreign file.

This module begins transactions.
"""

import structlog
from sqlalchemy.exc import IntegrityError

from app.database import Database
from app.errors import MediaIdCollision, StorageFull
from app.ingest.candidate import Candidate
from app.ingest.commit import after_unknown_commit, ensure_taken
from app.ingest.duplicates import IngestResult, fetch_media
from app.ingest.group_commit import GroupCommit
from app.storage import Orphan, lock_orphan, remove_if_same, sync_folder

log = structlog.get_logger()


class _NameTaken(Exception):
    """Another upload published its file between the orphan's removal and this upload's link; its row will exist."""


def take_over_orphan(
    database: Database, group_commit: GroupCommit, candidate: Candidate, wait: float
) -> IngestResult | None:
    """Adopt the file if it has the candidate's content; replace it if a crash left it with other content.

    Waits up to `wait` seconds for an upload that is about to record the file. Returns None if there is no orphan (any
    more). Raises MediaIdCollision if the content differs and no temporary name proves the file an upload's;
    Unavailable.
    """
    with lock_orphan(candidate.path, wait=wait) as orphan:
        if orphan is None or fetch_media(database, candidate.media.id) is not None:
            return None
        if candidate.has_content_of(orphan.fd):
            return _adopt(database, group_commit, candidate, orphan)
        if not orphan.other_names():
            raise MediaIdCollision(
                f"A file without a record has id {candidate.media.id} but other content; it is unchanged."
            )
        return _replace(database, group_commit, candidate, orphan)


def _adopt(database: Database, group_commit: GroupCommit, candidate: Candidate, orphan: Orphan) -> IngestResult | None:
    orphan.sync()
    sync_folder(candidate.path.parent)
    try:
        with database.write_transaction() as connection:
            group_commit.add(connection, [candidate.to_pending()])
    except IntegrityError as error:
        ensure_taken(database, candidate, error)
        return None
    for name in orphan.other_names():
        remove_if_same(name, orphan.fd)
    log.info("orphan_adopted", media_id=candidate.media.id)
    return IngestResult(candidate.media, duplicate=False)


def _replace(
    database: Database, group_commit: GroupCommit, candidate: Candidate, orphan: Orphan
) -> IngestResult | None:
    """Replace the orphan while the inserted row keeps other uploads of the id waiting.

    The temporary names go last: a crash in between must not leave the orphan without the proof of its origin.
    """
    proofs = orphan.other_names()
    database.overwrite_failed_commit()
    committing = False
    try:
        with database.write_transaction() as connection:
            group_commit.add(connection, [candidate.to_pending()])
            for name in (orphan.path, *proofs):
                remove_if_same(name, orphan.fd)
            if not candidate.incoming.publish(candidate.path):
                raise _NameTaken
            sync_folder(candidate.path.parent)
            committing = True
    except BaseException as error:
        if committing and not isinstance(error, IntegrityError | StorageFull):
            return after_unknown_commit(database, candidate, error)
        candidate.incoming.unpublish(candidate.path)
        if isinstance(error, IntegrityError):
            ensure_taken(database, candidate, error)
        elif not isinstance(error, _NameTaken):
            raise
        return None
    log.info("orphan_replaced", media_id=candidate.media.id)
    return IngestResult(candidate.media, duplicate=False)
