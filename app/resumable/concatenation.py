"""Concatenates partial uploads, which may have arrived in any order and in parallel."""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext

from app.database.models import ResumableUpload
from app.errors import MalformedUpload, MediaTooLarge
from app.media.types import MEDIA_TYPES, extension_of
from app.resumable.limits import Limits
from app.resumable.metadata import file_metadata
from app.resumable.records import UploadRecords
from app.resumable.writers import Slot, Writers, Writing
from app.storage import Incoming, Storage


class Concatenation:
    """Creates final uploads from partial ones."""

    def __init__(self, records: UploadRecords, storage: Storage, writers: Writers, limits: Limits) -> None:
        self._records = records
        self._storage = storage
        self._writers = writers
        self._limits = limits

    def concatenate(self, user_id: str, metadata: str, part_ids: Sequence[str], slot: Slot) -> ResumableUpload:
        """Create an upload from partial ones, in that order. `finish_if_complete` then finishes it.

        The first part's file is reused if possible, and the others are appended to it. A repeated call returns the same
        upload, because the first answer may have been lost. Raises MalformedUpload unless the parts are different,
        partial and complete; UnsupportedMedia, MediaTooLarge, and what `append` raises.
        """
        joined_ids = " ".join(part_ids)
        existing = self._records.find_final(user_id, joined_ids)
        if existing is not None:
            return self._records.find(existing.id, user_id)
        media_type = MEDIA_TYPES[extension_of(file_metadata(metadata).name)].kind
        if len(set(part_ids)) != len(part_ids):
            raise MalformedUpload("A final upload cannot contain a partial upload twice.")
        with slot(), ExitStack() as stack:
            locked = {
                part: stack.enter_context(self._writers.lock(part, user_id, nullcontext)) for part in sorted(part_ids)
            }
            parts = [locked[part] for part in part_ids]
            combined, incoming = self._combine_files(parts, media_type, stack)
            upload = ResumableUpload(
                id=secrets.token_hex(16),
                user_id=user_id,
                kind="final",
                state="receiving",
                file=str(combined.path),
                upload_metadata=metadata,
                length=combined.size,
                received=combined.size,
                takeovers=0,
                parts=joined_ids,
            )
            self._records.combine([part.upload for part in parts], upload)
            combined.keep_name()
            for file in incoming:
                file.keep_name(keep=file is combined)
        return upload

    def _combine_files(
        self, parts: Sequence[Writing], media_type: str, stack: ExitStack
    ) -> tuple[Incoming, list[Incoming]]:
        """Return the durable file with the content of all parts, and the parts' files."""
        incoming = [part.incoming for part in parts if part.incoming is not None]
        for part in parts:
            if part.incoming is None or part.upload.kind != "partial" or part.upload.received != part.upload.length:
                raise MalformedUpload(f"Upload {part.upload.id} is not a complete partial upload.")
        size = sum(file.size for file in incoming)
        if size > self._limits.max_bytes:
            raise MediaTooLarge(f"the file has more than {self._limits.max_bytes} bytes")
        combined, *others = incoming
        if combined.folder == self._storage.folder_of(media_type):
            self._storage.admit(size - combined.size)
        else:
            combined, others = stack.enter_context(self._storage.create_resumable(media_type, size)), incoming
        for file in others:
            combined.append_file(file)
        combined.sync()
        return combined, incoming
