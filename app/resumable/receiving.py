"""Receives the bytes of one part: checks, writes, syncs, and then counts them.

The row's `received` bytes are durable: it advances after the file's sync and only from the value that this writer
started with, so a writer that lost its lock changes nothing.
"""

import time

from app.database.models import ResumableUpload
from app.errors import (
    Forbidden,
    MalformedUpload,
    MediaTooLarge,
    StorageFailed,
    UnsupportedMedia,
    UploadLocked,
    WrongOffset,
)
from app.media.types import HEAD_BYTES, check_first_bytes, extension_of
from app.resumable.finishing import Finishing
from app.resumable.limits import Limits
from app.resumable.metadata import file_metadata
from app.resumable.parts import Part
from app.resumable.records import UploadRecords
from app.resumable.writers import Writers, Writing, taken_over
from app.storage import Incoming, Storage


class Receiving:
    """Receives parts."""

    def __init__(
        self, records: UploadRecords, storage: Storage, writers: Writers, finishing: Finishing, limits: Limits
    ) -> None:
        self._records = records
        self._storage = storage
        self._writers = writers
        self._finishing = finishing
        self._limits = limits

    def check(self, upload: ResumableUpload, part: Part) -> None:
        """Raise if the part cannot be the next one: WrongOffset, Forbidden, MalformedUpload, MediaTooLarge,
        StorageFull.
        """
        if upload.kind == "final":
            raise Forbidden("Nothing can be appended to a final upload.")
        if part.offset != upload.received:
            raise WrongOffset(upload.received, part.offset)
        if part.length is not None and upload.length not in (None, part.length):
            raise MalformedUpload(f"Upload-Length is {upload.length} and cannot change to {part.length}.")
        if part.length is not None and part.length < part.offset:
            raise MalformedUpload(f"Upload-Length {part.length} is less than the {part.offset} bytes already received.")
        self._check_size(upload, part)

    def set_length(self, upload: ResumableUpload, incoming: Incoming, length: int) -> None:
        """Record the length, and put it into the file's name.

        The file gets its second name first, so that a crash in between leaves one name too many and never one too few.
        """
        self._storage.admit(length - upload.received)
        declared = incoming.add_declared_name(length)
        try:
            if not self._records.set_length(upload, length, str(declared)):
                raise UploadLocked(f"Another request has set the length of upload {upload.id}; try again.")
        except UploadLocked:
            declared.unlink()
            raise
        incoming.path.unlink()
        incoming.path = declared
        upload.length, upload.file = length, str(declared)

    def receive(self, writing: Writing, incoming: Incoming, part: Part) -> None:
        """Write the part and count it. Bytes before an error count, unless the part has a checksum."""
        upload = writing.upload
        if upload.takeovers > writing.number:  # by another request while this one waited for the lock
            raise taken_over(upload)
        try:
            self._write(writing, incoming, part)
            if part.checksum is not None:
                part.checksum.check()
        except UnsupportedMedia as error:
            self._finishing.refuse(upload, incoming, error)
            raise
        except StorageFailed:  # bytes that a failed sync lost must not be counted
            raise
        except BaseException:
            if part.checksum is None:
                self._save(upload, incoming)
            raise
        self._save(upload, incoming)

    def _check_size(self, upload: ResumableUpload, part: Part) -> None:
        length = upload.length if part.length is None else part.length
        limit = self._limits.max_bytes if length is None else length
        if limit > self._limits.max_bytes or part.offset + (part.size or 0) > limit:
            raise MediaTooLarge(f"the upload would have more than {min(limit, self._limits.max_bytes)} bytes")
        if length is None:  # no space was reserved for it
            self._storage.admit(part.size or 0)

    def _write(self, writing: Writing, incoming: Incoming, part: Part) -> None:
        upload = writing.upload
        limit = self._limits.max_bytes if upload.length is None else upload.length
        checked = upload.kind == "partial" or upload.received >= HEAD_BYTES
        saved = time.monotonic()
        for chunk in part.receive(lambda: self._writers.check_not_taken_over(writing)):
            if incoming.size + len(chunk) > limit:
                raise MediaTooLarge(f"the upload would have more than {limit} bytes")
            incoming.write(chunk)
            if part.checksum is not None:
                part.checksum.update(chunk)
            elif time.monotonic() - saved >= self._limits.checkpoint:
                self._save(upload, incoming)
                saved = time.monotonic()
            if not checked and incoming.size >= min(limit, HEAD_BYTES):
                name = file_metadata(upload.upload_metadata).name
                check_first_bytes(extension_of(name), incoming.head(HEAD_BYTES))
                checked = True

    def _save(self, upload: ResumableUpload, incoming: Incoming) -> None:
        """Make the written bytes durable and count them. Raises UploadLocked if another process has continued."""
        if incoming.size == upload.received:
            return
        incoming.sync()
        if not self._records.advance(upload, incoming.size):
            raise UploadLocked(f"Another process has continued upload {upload.id}.")
        self._writers.states.put(upload.id, incoming.size, incoming.digest)
