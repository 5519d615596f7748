"""Reads and writes records of resumable uploads, one short transaction each.

This module begins transactions.
"""

from collections.abc import Sequence

from app.database import Database, WriteTransaction
from app.database.models import ResumableUpload
from app.errors import DetectionsError, UploadGone, UploadNotFound
from app.resumable import rows


class UploadRecords:
    """The records. Thread-safe. `lifetime` is how many seconds an upload may go without a request."""

    def __init__(self, database: Database, lifetime: float) -> None:
        self._database = database
        self._now = database.now
        self._lifetime = lifetime

    def add(self, upload: ResumableUpload, limit: int) -> None:
        """Record a new upload. Raises TooManyUploads if its user already has `limit` unfinished ones."""
        with self._database.write_transaction() as session:
            rows.check_count(session, self._now, upload.user_id, limit)
            rows.add(session, self._now, upload, self._lifetime)

    def combine(self, parts: Sequence[ResumableUpload], final: ResumableUpload) -> None:
        """Record a final upload in place of its partial ones."""
        with self._database.write_transaction() as session:
            rows.end_parts(session, self._now, parts)
            rows.add(session, self._now, final, self._lifetime)

    def find(self, upload_id: str, user_id: str) -> ResumableUpload:
        """Return the upload as recorded, whether or not it is being written. Raises UploadNotFound, UploadGone."""
        with self._database.read_transaction() as session:
            upload = rows.fetch(session, upload_id, user_id)
            if upload is None:
                raise UploadNotFound(
                    f"You have no upload {upload_id[:80]!r}; its record is kept for an hour after its end."
                )
            if rows.is_expired(session, self._now, upload):
                raise UploadGone(f"Upload {upload_id} has expired.")
        return upload

    def find_final(self, user_id: str, parts: str) -> ResumableUpload | None:
        """Return the final upload made of these parts (ids separated by spaces), or None."""
        with self._database.read_transaction() as session:
            return rows.final_of(session, user_id, parts)

    def takeovers(self, upload_id: str) -> int | None:
        """Return how many requests have asked the upload's writer to stop; None if the upload is gone."""
        with self._database.read_transaction() as session:
            return rows.takeovers(session, upload_id)

    def request_takeover(self, upload_id: str) -> int:
        """Ask the upload's writer to stop. Return this request's number among those that asked."""
        with self._database.write_transaction() as session:
            return rows.request_takeover(session, upload_id)

    def advance(self, upload: ResumableUpload, received: int) -> bool:
        """Record that `received` bytes are durable. Return False if another process has continued the upload."""
        with self._database.write_transaction() as session:
            expires_at = rows.advance(session, self._now, upload, received, self._lifetime)
        if expires_at is not None:
            upload.received, upload.expires_at = received, expires_at
        return expires_at is not None

    def set_length(self, upload: ResumableUpload, length: int, file: str) -> bool:
        """Record the deferred length and the file's name. Return False if a length is recorded already."""
        with self._database.write_transaction() as session:
            return rows.set_length(session, upload, length, file)

    def complete(
        self, transaction: WriteTransaction, upload: ResumableUpload, media_id: str, *, duplicate: bool = False
    ) -> None:
        """In the caller's transaction, which records the media item or its run, record that the upload became it."""
        rows.complete(transaction, self._now, upload, media_id, duplicate=duplicate)

    def complete_duplicate(self, upload: ResumableUpload, media_id: str) -> None:
        """Record that the upload is a duplicate of a media item."""
        with self._database.write_transaction() as session:
            rows.complete(session, self._now, upload, media_id, duplicate=True)

    def fail(self, upload: ResumableUpload, error: DetectionsError) -> None:
        """Record why the upload is refused."""
        with self._database.write_transaction() as session:
            rows.fail(session, self._now, upload, error)

    def delete(self, upload: ResumableUpload, *, if_expired: bool = False) -> bool:
        """Delete the record. Return False if it is gone or, with `if_expired`, has not expired."""
        with self._database.write_transaction() as session:
            return rows.delete_row(session, self._now if if_expired else None, upload)

    def expired(self, limit: int) -> list[ResumableUpload]:
        """Return up to `limit` expired uploads."""
        with self._database.read_transaction() as session:
            return rows.expired(session, self._now, limit)

    def abandoned(self, limit: int) -> list[ResumableUpload]:
        """Return up to `limit` complete uploads whose client did not return to finish them."""
        with self._database.read_transaction() as session:
            return rows.abandoned(session, self._now, self._lifetime, limit)
