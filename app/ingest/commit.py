"""Commits a published file, and handles a commit that failed or whose outcome is unknown."""

from sqlalchemy.exc import IntegrityError

from app.database import Database
from app.ingest.candidate import Candidate
from app.ingest.duplicates import IngestResult, fetch_media
from app.ingest.group_commit import CommitUnknown, GroupCommit


def commit_media(database: Database, group_commit: GroupCommit, candidate: Candidate) -> IngestResult | None:
    """Make the folder's names, the row and its messages durable. Return None if the id is recorded already.

    After an error the final name is removed, unless the commit may have succeeded: see `after_unknown_commit`.
    """
    try:
        group_commit.record(candidate.to_pending())
    except CommitUnknown as unknown:
        return after_unknown_commit(database, candidate, unknown.__cause__ or unknown)
    except IntegrityError as error:
        candidate.incoming.unpublish(candidate.path)
        ensure_taken(database, candidate, error)
        return None
    except BaseException:
        candidate.incoming.unpublish(candidate.path)
        raise
    return IngestResult(candidate.media, duplicate=False)


def after_unknown_commit(database: Database, candidate: Candidate, error: BaseException) -> IngestResult:
    """Check whether the commit succeeded. Raise `error` if it did not, or if that cannot be determined.

    No file is deleted. The temporary name stays, so that a sweep can later tell the file's origin.
    """
    candidate.incoming.keep_name()
    recorded = fetch_media(database, candidate.media.id) if isinstance(error, Exception) else None
    if recorded is None or recorded.path != candidate.media.path:
        raise error
    return IngestResult(recorded, duplicate=False)


def ensure_taken(database: Database, candidate: Candidate, error: IntegrityError) -> None:
    """Return if another upload recorded the id first. Any other conflict would repeat, so raise `error`."""
    if fetch_media(database, candidate.media.id) is None:
        raise error
