"""The branch of a final name that is taken by a file without a row: the orphan of a crash, or somebody's own file.

This module begins transactions.
"""

import structlog
from sqlalchemy.exc import IntegrityError

from app.database import Database
from app.errors import MediaIdCollision, StorageFull
from app.ingest.candidate import Candidate
from app.ingest.commit import after_unknown_commit, ensure_taken
from app.ingest.duplicates import IngestResult, fetch_media
from app.ingest.group_commit import Recorder
from app.storage import Orphan, lock_orphan, remove_if_same, sync_folder

log = structlog.get_logger()


class _NameTaken(Exception):
    """Another upload linked its file between our removing the orphan and our own link; it will find our row."""


def take_over_orphan(database: Database, recorder: Recorder, candidate: Candidate, wait: float) -> IngestResult | None:
    """Adopt the file if it has the candidate's bytes, replace it if it is a crash's and has others.

    Waits up to `wait` seconds for an upload that is about to record the file. None where there is no orphan any more.
    Raises MediaIdCollision where the file has other bytes and nothing proves it an upload's; Unavailable.
    """
    with lock_orphan(candidate.path, wait=wait) as orphan:
        if orphan is None or fetch_media(database, candidate.media.id) is not None:
            return None
        if candidate.has_content_of(orphan.fd):
            return _adopt(database, recorder, candidate, orphan)
        if not orphan.other_names():
            raise MediaIdCollision(f"A file without a record has id {candidate.media.id} and other content; it stays.")
        return _replace(database, recorder, candidate, orphan)


def _adopt(database: Database, recorder: Recorder, candidate: Candidate, orphan: Orphan) -> IngestResult | None:
    orphan.sync()
    sync_folder(candidate.path.parent)
    try:
        with database.write_transaction() as connection:
            recorder.add(connection, [candidate.as_recording()])
    except IntegrityError as error:
        ensure_taken(database, candidate, error)
        return None
    for name in orphan.other_names():
        remove_if_same(name, orphan.fd)
    log.info("orphan_adopted", media_id=candidate.media.id)
    return IngestResult(candidate.media, duplicate=False)


def _replace(database: Database, recorder: Recorder, candidate: Candidate, orphan: Orphan) -> IngestResult | None:
    """Holding the id's row keeps every other recorder out while the orphan's names go and the candidate gets its own.

    The proofs go last: a crash in between must not leave the orphan without them.
    """
    proofs = orphan.other_names()
    database.overwrite_failed_commit()
    committing = False
    try:
        with database.write_transaction() as connection:
            recorder.add(connection, [candidate.as_recording()])
            for name in (orphan.path, *proofs):
                remove_if_same(name, orphan.fd)
            if not candidate.incoming.publish(candidate.path):
                raise _NameTaken
            sync_folder(candidate.path.parent)
            committing = True
    except BaseException as error:
        if committing and not isinstance(error, IntegrityError | StorageFull):
            return after_unknown_commit(database, candidate, error)
        candidate.incoming.withdraw(candidate.path)
        if isinstance(error, IntegrityError):
            ensure_taken(database, candidate, error)
        elif not isinstance(error, _NameTaken):
            raise
        return None
    log.info("orphan_replaced", media_id=candidate.media.id)
    return IngestResult(candidate.media, duplicate=False)
