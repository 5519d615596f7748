"""One upload made of partial ones, which came in any order and at once.

This module begins transactions.
"""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext

from app.db import Database
from app.errors import MalformedUpload, MediaTooLarge
from app.media_types import MEDIA_TYPES, extension_of
from app.models import ResumableUpload
from app.resumable import rows
from app.resumable.limits import Limits
from app.resumable.metadata import file_metadata
from app.resumable.writers import Slot, Writers, Writing
from app.storage import Incoming, Storage


class Concatenation:
    """Makes final uploads."""

    def __init__(self, database: Database, storage: Storage, writers: Writers, limits: Limits) -> None:
        self._database = database
        self._storage = storage
        self._writers = writers
        self._limits = limits

    def concatenate(self, user_id: str, metadata: str, part_ids: Sequence[str], slot: Slot) -> ResumableUpload:
        """Make one upload of partial ones, in that order; its bytes are all there then, and `settle` finishes it.

        The bytes of the first part stay where they are, those of the others are copied behind them. Asked for again,
        the same is returned: its answer may have been lost. Raises MalformedUpload where these are not different,
        partial and whole, UnsupportedMedia, MediaTooLarge, and what `append` raises.
        """
        parts_named = " ".join(part_ids)
        with self._database.reading() as session:
            made = rows.final_of(session, user_id, parts_named)
        if made is not None:
            return self._writers.find(made.id, user_id)
        media_type = MEDIA_TYPES[extension_of(file_metadata(metadata).name)].kind
        if len(set(part_ids)) != len(part_ids):
            raise MalformedUpload("A partial upload can be a part of a final one only once.")
        with slot(), ExitStack() as stack:
            locked = {
                part: stack.enter_context(self._writers.writing(part, user_id, nullcontext))
                for part in sorted(part_ids)
            }
            parts = [locked[part] for part in part_ids]
            whole, incoming = self._whole_of(parts, media_type, stack)
            upload = ResumableUpload(
                id=secrets.token_hex(16),
                user_id=user_id,
                kind="final",
                state="receiving",
                file=str(whole.path),
                upload_metadata=metadata,
                length=whole.size,
                received=whole.size,
                takeovers=0,
                parts=parts_named,
            )
            with self._database.writing() as session:
                rows.use_up(session.connection(), self._database.now, [part.upload for part in parts])
                rows.add(session, self._database.now, upload, self._limits.lifetime)
            whole.keep_name()
            for one in incoming:
                one.keep_name(keep=one is whole)
        return upload

    def _whole_of(self, parts: Sequence[Writing], media_type: str, stack: ExitStack) -> tuple[Incoming, list[Incoming]]:
        """The file that has the bytes of all parts, durable, and the files of the parts."""
        incoming = [part.incoming for part in parts if part.incoming is not None]
        for part in parts:
            if part.incoming is None or part.upload.kind != "partial" or part.upload.received != part.upload.length:
                raise MalformedUpload(f"Upload {part.upload.id} is not a partial one whose bytes are all there.")
        size = sum(one.size for one in incoming)
        if size > self._limits.max_bytes:
            raise MediaTooLarge(f"the file has more than {self._limits.max_bytes} bytes")
        whole, *others = incoming
        if whole.folder == self._storage.folder_of(media_type):
            self._storage.admit(size - whole.size)
        else:
            whole, others = stack.enter_context(self._storage.create_resumable(media_type, size)), incoming
        for one in others:
            whole.append_file(one)
        whole.sync()
        return whole, incoming
