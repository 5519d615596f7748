"""Resumable uploads: create, append, finish, terminate. Any process on the same database and folders may continue one.

An unfinished upload is a row and its file in `.incoming/`. After the last part the file goes through the same ingest as
any other upload.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from app.database.models import ResumableUpload
from app.errors import MalformedUpload, MediaTooLarge
from app.media.types import MEDIA_TYPES, extension_of
from app.resumable.concatenation import Concatenation
from app.resumable.finishing import Finishing
from app.resumable.limits import Limits
from app.resumable.metadata import file_metadata
from app.resumable.parts import Part
from app.resumable.receiving import Receiving
from app.resumable.records import UploadRecords
from app.resumable.writers import Slot, Writers
from app.storage import Storage


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What a client says about an upload before its first byte. `length` is None if it is deferred."""

    user_id: str
    metadata: str
    length: int | None
    is_partial: bool = False


class ResumableUploads:
    """The use case. Safe to use from several threads and processes."""

    def __init__(self, records: UploadRecords, storage: Storage, finishing: Finishing, limits: Limits) -> None:
        self._records = records
        self._storage = storage
        self._finishing = finishing
        self._limits = limits
        self._writers = Writers(records, limits)
        self._receiving = Receiving(records, storage, self._writers, finishing, limits)
        self._concatenation = Concatenation(records, storage, self._writers, limits)

    @property
    def max_bytes(self) -> int:
        """The largest size of one file."""
        return self._limits.max_bytes

    def create(self, new: NewUpload) -> ResumableUpload:
        """Reserve space for an upload and record it durably.

        Raises MalformedUpload, UnsupportedMedia, MediaTooLarge, TooManyUploads, StorageFull, StorageFailed,
        Unavailable.
        """
        if new.length is not None and new.length > self._limits.max_bytes:
            raise MediaTooLarge(f"the file has more than {self._limits.max_bytes} bytes")
        if new.length == 0 and not new.is_partial:
            raise MalformedUpload("the file is empty")
        # The type of a partial upload is known only when it is concatenated.
        media_type = "Video" if new.is_partial else MEDIA_TYPES[extension_of(file_metadata(new.metadata).name)].kind
        with self._storage.create_resumable(media_type, new.length) as incoming:
            upload = ResumableUpload(
                id=secrets.token_hex(16),
                user_id=new.user_id,
                kind="partial" if new.is_partial else "single",
                state="receiving",
                file=str(incoming.path),
                upload_metadata=new.metadata,
                length=new.length,
                received=0,
                takeovers=0,
            )
            self._records.add(upload, self._limits.per_user)
            incoming.keep_name()
        return upload

    def concatenate(self, user_id: str, metadata: str, part_ids: Sequence[str], slot: Slot) -> ResumableUpload:
        """Create an upload from partial ones; see `app.resumable.concatenation`. `finish_if_complete` finishes it."""
        return self._concatenation.concatenate(user_id, metadata, part_ids, slot)

    def find(self, upload_id: str, user_id: str) -> ResumableUpload:
        """Return the upload as recorded, whether or not it is being written. Raises UploadNotFound, UploadGone."""
        return self._records.find(upload_id, user_id)

    def finish_if_complete(self, upload_id: str, user_id: str, slot: Slot, request_id: str | None) -> ResumableUpload:
        """Stop the upload's writer, finish the upload if it is complete, and return it. Raises as `append` does."""
        with self._writers.lock(upload_id, user_id, slot) as writing:
            if writing.incoming is not None and is_complete(writing.upload):
                with slot():
                    self._finishing.finish(writing.upload, writing.incoming, request_id)
            return writing.upload

    def append(self, upload_id: str, user_id: str, part: Part, slot: Slot) -> ResumableUpload:
        """Write a part durably, and finish the upload if it is the last part.

        Raises UploadNotFound, UploadGone, UploadLocked, UploadTakenOver, WrongOffset, ChecksumMismatch, Forbidden,
        MalformedUpload, MediaTooLarge, what `part.receive` raises, and what `Ingest.run` raises. Bytes before an error
        count, unless the part has a checksum.
        """
        with self._writers.lock(upload_id, user_id, slot) as writing:
            upload, incoming = writing.upload, writing.incoming
            self._receiving.check(upload, part)
            if incoming is None:
                return upload
            if part.length is not None and upload.length is None:
                self._receiving.set_length(upload, incoming, part.length)
            with slot():
                self._receiving.receive(writing, incoming, part)
                if is_complete(upload):
                    self._finishing.finish(upload, incoming, part.request_id)
            return upload

    def terminate(self, upload_id: str, user_id: str, slot: Slot) -> None:
        """Delete an upload and its file. A media item that it became stays."""
        with self._writers.lock(upload_id, user_id, slot, raise_stored_error=False) as writing:
            self._records.delete(writing.upload)
            if writing.incoming is not None:
                writing.incoming.keep_name(keep=False)


def is_complete(upload: ResumableUpload) -> bool:
    """Return whether all bytes of the upload are received and it can be finished."""
    return upload.kind != "partial" and upload.received == upload.length
