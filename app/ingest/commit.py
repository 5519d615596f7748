"""The commit of a published file, and what becomes of the file where the commit fails or nobody can tell."""

from sqlalchemy.exc import IntegrityError

from app.database import Database
from app.ingest.candidate import Candidate
from app.ingest.duplicates import IngestResult, fetch_media
from app.ingest.group_commit import CommitUnknown, Recorder


def commit_media(database: Database, recorder: Recorder, candidate: Candidate) -> IngestResult | None:
    """Make the folder's names, the row and its messages durable; None where the id turns out to be taken.

    After any error the final name is gone again, but where the commit may have come true: see `after_unknown_commit`.
    """
    try:
        recorder.record(candidate.as_recording())
    except CommitUnknown as unknown:
        return after_unknown_commit(database, candidate, unknown.__cause__ or unknown)
    except IntegrityError as error:
        candidate.incoming.withdraw(candidate.path)
        ensure_taken(database, candidate, error)
        return None
    except BaseException:
        candidate.incoming.withdraw(candidate.path)
        raise
    return IngestResult(candidate.media, duplicate=False)


def after_unknown_commit(database: Database, candidate: Candidate, error: BaseException) -> IngestResult:
    """Look up whether the commit came true; raises `error` where it did not, or where that cannot be told.

    No file is deleted: the temporary name stays, as the proof by which a sweep may decide later.
    """
    candidate.incoming.keep_name()
    recorded = fetch_media(database, candidate.media.id) if isinstance(error, Exception) else None
    if recorded is None or recorded.path != candidate.media.path:
        raise error
    return IngestResult(recorded, duplicate=False)


def ensure_taken(database: Database, candidate: Candidate, error: IntegrityError) -> None:
    """Return where another upload recorded the id first; a conflict of any other kind would only come again."""
    if fetch_media(database, candidate.media.id) is None:
        raise error
