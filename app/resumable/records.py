"""The records of resumable uploads, one short transaction each.

This module begins transactions.
"""

from collections.abc import Sequence

from app.database import Database, WriteTransaction
from app.database.models import ResumableUpload
from app.errors import DetectionsError, UploadGone, UploadNotFound
from app.resumable import rows


class UploadRecords:
    """Safe to use from several threads. `lifetime` is how many seconds an upload may go without a request."""

    def __init__(self, database: Database, lifetime: float) -> None:
        self._database = database
        self._now = database.now
        self._lifetime = lifetime

    def add(self, upload: ResumableUpload, most: int) -> None:
        """Record a new upload; raises TooManyUploads where its user has `most` unfinished ones already."""
        with self._database.write_transaction() as session:
            rows.check_count(session, self._now, upload.user_id, most)
            rows.add(session, self._now, upload, self._lifetime)

    def combine(self, parts: Sequence[ResumableUpload], final: ResumableUpload) -> None:
        """Record a new upload in place of the partial ones of which it is made."""
        with self._database.write_transaction() as session:
            rows.use_up(session, self._now, parts)
            rows.add(session, self._now, final, self._lifetime)

    def find(self, upload_id: str, user_id: str) -> ResumableUpload:
        """The upload, as its row says, whoever is writing it. Raises UploadNotFound, UploadGone."""
        with self._database.read_transaction() as session:
            upload = rows.fetch(session, upload_id, user_id)
            if upload is None:
                raise UploadNotFound(f"You have no upload {upload_id[:80]!r}; it may have ended more than an hour ago.")
            if rows.is_expired(session, self._now, upload):
                raise UploadGone(f"Upload {upload_id} has expired.")
        return upload

    def find_final(self, user_id: str, parts: str) -> ResumableUpload | None:
        """The upload that was made of these parts, ids with spaces between, if it was."""
        with self._database.read_transaction() as session:
            return rows.final_of(session, user_id, parts)

    def takeovers(self, upload_id: str) -> int | None:
        """How many requests have asked whoever writes the upload to stop; None where it is gone."""
        with self._database.read_transaction() as session:
            return rows.takeovers(session, upload_id)

    def ask_to_stop(self, upload_id: str) -> int:
        """Ask whoever writes the upload to stop; returns the number of this request among those that asked."""
        with self._database.write_transaction() as session:
            return rows.ask_to_stop(session, upload_id)

    def advance(self, upload: ResumableUpload, received: int) -> bool:
        """Say that so many bytes are durable; false where another process has gone on from where `upload` was."""
        with self._database.write_transaction() as session:
            expires_at = rows.advance(session, self._now, upload, received, self._lifetime)
        if expires_at is not None:
            upload.received, upload.expires_at = received, expires_at
        return expires_at is not None

    def tell_length(self, upload: ResumableUpload, length: int, file: str) -> bool:
        """Note the length that the client had left open, and the file's name; false where another one was told."""
        with self._database.write_transaction() as session:
            return rows.tell_length(session, upload, length, file)

    def complete(
        self, transaction: WriteTransaction, upload: ResumableUpload, media_id: str, *, duplicate: bool = False
    ) -> None:
        """Say in the caller's transaction, which records the media item or its run, that the upload became it."""
        rows.complete(transaction, self._now, upload, media_id, duplicate=duplicate)

    def complete_duplicate(self, upload: ResumableUpload, media_id: str) -> None:
        """Say that the upload turned out to be a media item that is known."""
        with self._database.write_transaction() as session:
            rows.complete(session, self._now, upload, media_id, duplicate=True)

    def fail(self, upload: ResumableUpload, error: DetectionsError) -> None:
        """Say why the upload is refused."""
        with self._database.write_transaction() as session:
            rows.fail(session, self._now, upload, error)

    def forget(self, upload: ResumableUpload, *, if_expired: bool = False) -> bool:
        """Delete the record; false where it is gone already or, if that is asked for, has not expired."""
        with self._database.write_transaction() as session:
            return rows.forget(session, self._now if if_expired else None, upload)

    def expired(self, most: int) -> list[ResumableUpload]:
        """Uploads whose time has passed."""
        with self._database.read_transaction() as session:
            return rows.expired(session, self._now, most)

    def left_behind(self, most: int) -> list[ResumableUpload]:
        """Uploads whose bytes are all there and whose client has not come back for a while."""
        with self._database.read_transaction() as session:
            return rows.left_behind(session, self._now, self._lifetime, most)
