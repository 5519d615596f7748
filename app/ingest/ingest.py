"""Ingest in one page: receive, identify, sync, publish, commit, answer.

The order guarantees durability: the content is synced, published by link, and the folder is synced before one short
transaction. A row therefore never lacks its file, and a file without a row is the orphan of a crash whose temporary
name identifies it. The crash table in docs/reliability.md lists what a kill after each step leaves and what removes it.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from app.database import Database
from app.database.models import Media, MediaStatus
from app.errors import Unavailable
from app.ingest.candidate import Candidate
from app.ingest.commit import commit_media
from app.ingest.duplicates import IngestResult, find_duplicate
from app.ingest.group_commit import GroupCommit, InTransaction
from app.ingest.orphans import take_over_orphan
from app.media.display_name import clean_name
from app.media.hashing import media_id_of_file
from app.media.types import HEAD_BYTES, MEDIA_TYPES, check_first_bytes, extension_of
from app.outbox.queue import OutboxQueue
from app.storage import Incoming, Storage, name_exists

OnReceived = Callable[[Media, Path], None]
"""Called with a new media item and with its complete file, which stays while the upload lasts."""

LOCK_WAIT_SECONDS = 30.0
"""How long an upload waits for another upload of the same id that is about to commit."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file as a client sends it. `declared_bytes` is an upper bound of its size, None if unknown."""

    name: str
    user_id: str
    chunks: Iterable[bytes | memoryview]
    declared_bytes: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """One completely received file. `name` is the client's file name, not yet cleaned."""

    name: str
    user_id: str
    incoming: Incoming
    request_id: str | None = None


class Ingest:
    """The use case behind every upload."""

    def __init__(
        self,
        database: Database,
        queue: OutboxQueue,
        storage: Storage,
        *,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._group_commit = GroupCommit(database, queue)
        self._storage = storage
        self._lock_wait_seconds = lock_wait_seconds
        self._monotonic = monotonic

    def run(
        self,
        upload: Upload,
        in_transaction: InTransaction = lambda _transaction, _media: None,
        *,
        on_received: OnReceived = lambda _media, _file: None,
    ) -> IngestResult:
        """Store the file and record it.

        `in_transaction` adds to the transaction that records a new media item. `on_received` is called before the file
        is durable and may begin speculative work. If a row's file is missing and the upload has its size and checksum,
        the upload replaces it and counts as a duplicate.

        Raises UnsupportedMedia, MediaIdCollision, StorageFull, StorageFailed, Unavailable, and what `upload.chunks`
        raises. Nothing is recorded after an error.
        """
        extension = extension_of(clean_name(upload.name))
        with self._storage.incoming(MEDIA_TYPES[extension].kind, upload.declared_bytes) as incoming:
            receive(upload.chunks, incoming, extension)
            received = Received(upload.name, upload.user_id, incoming, upload.request_id)
            return self.run_received(received, in_transaction, on_received=on_received)

    def run_received(
        self,
        received: Received,
        in_transaction: InTransaction = lambda _transaction, _media: None,
        *,
        on_received: OnReceived = lambda _media, _file: None,
    ) -> IngestResult:
        """Continue `run` with a file that is complete in `.incoming/` of its media type's folder."""
        deadline = self._monotonic() + self._lock_wait_seconds
        candidate = self._identify(received, in_transaction)
        # Check for a duplicate before the sync, because a duplicate need not be durable. If no file has
        # the name, the id is new or was recorded with another extension, which the commit detects.
        result = find_duplicate(self._database, candidate) if name_exists(candidate.path) else None
        if result is not None:
            return result
        on_received(candidate.media, candidate.incoming.path)
        candidate.incoming.sync()
        while True:
            if candidate.incoming.publish(candidate.path):
                result = commit_media(self._database, self._group_commit, candidate)
            else:
                wait = max(0.0, deadline - self._monotonic())
                result = take_over_orphan(self._database, self._group_commit, candidate, wait)
            result = result or find_duplicate(self._database, candidate)
            if result is not None:
                return result
            if self._monotonic() >= deadline:
                media_id = candidate.media.id
                raise Unavailable(f"Other uploads of media {media_id} are being recorded; try again.", retry_after=5)

    def _identify(self, received: Received, in_transaction: InTransaction) -> Candidate:
        name, incoming = clean_name(received.name), received.incoming
        extension = extension_of(name)
        media_type = MEDIA_TYPES[extension].kind
        media_id = media_id_of_file(incoming.fd)
        media = Media(
            id=media_id,
            name=name,
            path=str(self._storage.final_path(media_type, media_id, extension)),
            media_type=media_type,
            media_status=MediaStatus.NEW,
            user_id=received.user_id,
            size_bytes=incoming.size,
            checksum=incoming.checksum,
        )
        return Candidate(incoming, media, received.request_id, in_transaction)


def receive(chunks: Iterable[bytes | memoryview], incoming: Incoming, extension: str | None) -> None:
    """Write the chunks, and check the file's first bytes as soon as they have arrived, or at the end.

    With `extension` None nothing is checked. Raises UnsupportedMedia, StorageFull, StorageFailed, and what `chunks`
    raises.
    """
    is_checked = extension is None
    for chunk in chunks:
        incoming.write(chunk)
        if not is_checked and extension is not None and incoming.size >= HEAD_BYTES:
            check_first_bytes(extension, incoming.head(HEAD_BYTES))
            is_checked = True
    if not is_checked and extension is not None:
        check_first_bytes(extension, incoming.head(HEAD_BYTES))
