"""Taking a file in: bytes to disk, then file, Media row and outbox message made durable in the order that loses none.

The order is the whole point: content synced, published by link, folder synced, and only then one short transaction.
So a row never lacks its file, and a file that lacks its row is an orphan of a crash that carries its proof with it.
This module begins transactions.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Table, bindparam, select
from sqlalchemy.exc import IntegrityError

from app.db import Database
from app.direct import Direct
from app.display_name import clean_name
from app.errors import DetectionsError, MediaIdCollision, StorageFailed, StorageFull, Unavailable
from app.lifecycle import keep_checksum
from app.media_hash import media_id_of_file
from app.media_types import HEAD_BYTES, MEDIA_TYPES, check_first_bytes, extension_of
from app.models import Media, MediaStatus
from app.outbox.queue import OutboxQueue
from app.recorder import AndThen, CommitUnknown, Recorder, Recording
from app.storage import (
    FoundFile,
    Incoming,
    Storage,
    hold,
    is_taken,
    judged,
    open_stored,
    remove_if_same,
    same_content,
    sync_folder,
)

log = structlog.get_logger()

OnWhole = Callable[[Media, Path], None]
"""Called with a media that is not known yet, and with the file that holds all of it while the upload lasts."""

_TABLE: Table = Media.__table__  # type: ignore[assignment]
_RECORDED = Direct(select(_TABLE).where(_TABLE.c.id == bindparam("id")))

SETTLE_SECONDS = 30.0
"""How long an upload waits for another one of the same id that is about to commit."""


class _NameTaken(Exception):
    """Another upload linked its file between our removing the orphan and our own link; it will find our row."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file as a client sends it. `declared_bytes` is an upper bound known before it comes, if any."""

    name: str
    user_id: str
    chunks: Iterable[bytes | memoryview]
    declared_bytes: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The media as recorded; `duplicate` says that it had been before."""

    media: Media
    duplicate: bool


class Uploads:
    """The use case of both upload calls."""

    def __init__(
        self,
        database: Database,
        queue: OutboxQueue,
        storage: Storage,
        *,
        settle_seconds: float = SETTLE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._recorder = Recorder(database, queue)
        self._storage = storage
        self._settle_seconds = settle_seconds
        self._monotonic = monotonic

    def take_in(
        self,
        upload: Upload,
        and_then: AndThen = lambda _connection, _media: None,
        *,
        on_whole: OnWhole = lambda _media, _file: None,
    ) -> Receipt:
        """Store the file and record it; `and_then` adds to the transaction that records a new media. `on_whole` is
        called before that file is durable, and may begin what takes nothing for granted yet.

        A file that a row lacks is put back where its size and checksum are the row's: a duplicate.
        Raises UnsupportedMedia, MediaIdCollision, StorageFull, StorageFailed, Unavailable, and whatever
        `upload.chunks` raises; after any of them nothing is recorded.
        """
        name = clean_name(upload.name)
        extension = extension_of(name)
        media_type = MEDIA_TYPES[extension].kind
        with self._storage.incoming(media_type, upload.declared_bytes) as incoming:
            _receive(upload.chunks, incoming, extension)
            media_id = media_id_of_file(incoming.fd)
            final = self._storage.final_path(media_type, media_id, extension)
            media = Media(
                id=media_id,
                name=name,
                path=str(final),
                media_type=media_type,
                media_status=MediaStatus.NEW,
                user_id=upload.user_id,
                size_bytes=incoming.size,
                checksum=incoming.checksum,
            )
            recording = Recording(media, final.parent, upload.request_id, and_then)
            settling = _Settling(self._database, self._recorder, incoming, media, final, recording, on_whole)
            return settling.settle(self._settle_seconds, self._monotonic)


def _receive(chunks: Iterable[bytes | memoryview], incoming: Incoming, extension: str) -> None:
    judged = False
    for chunk in chunks:
        incoming.write(chunk)
        if not judged and incoming.size >= HEAD_BYTES:
            check_first_bytes(extension, incoming.head(HEAD_BYTES))
            judged = True
    if not judged:
        check_first_bytes(extension, incoming.head(HEAD_BYTES))


@dataclass(slots=True)
class _Settling:
    """A received file looking for its place."""

    database: Database
    recorder: Recorder
    incoming: Incoming
    media: Media
    final: Path
    recording: Recording
    on_whole: OnWhole

    def settle(self, seconds: float, monotonic: Callable[[], float]) -> Receipt:
        deadline = monotonic() + seconds
        # A duplicate is not kept, and need not be durable. No row is without its file: where none has the name, the id
        # is unknown, or known by another spelling of the extension, which the commit will tell.
        known = self._as_known() if is_taken(self.final) else None
        if known:
            return known
        self.on_whole(self.media, self.incoming.path)
        self.incoming.sync()
        while True:
            receipt = self._as_new() or self._over_unrecorded(max(0.0, deadline - monotonic())) or self._as_known()
            if receipt:
                return receipt
            if monotonic() >= deadline:
                raise Unavailable(f"Other uploads of media {self.media.id} are in the way; try again.", retry_after=5)

    def _as_known(self) -> Receipt | None:
        """The id has a row: the same bytes are a duplicate, other bytes a collision."""
        known = self._recorded()
        if known is None:
            return None
        try:
            stored = open_stored(Path(known.path), known.size_bytes)
        except StorageFailed as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            return self._put_back(known, error)
        try:
            if not self._has_our_content(stored):
                raise _collision(known)
        finally:
            os.close(stored)
        if known.checksum is None:
            self._keep_checksum(known)
        return Receipt(known, duplicate=True)

    def _put_back(self, known: Media, missing: StorageFailed) -> Receipt | None:
        """The row's file is missing, and these are its bytes: they get its name, as durably as a new file gets its own.

        None where somebody has put it back meanwhile. A run that waits for the file goes on by itself.
        """
        path = Path(known.path)
        if known.checksum is None or path.parent != self.incoming.folder:
            raise missing
        if (known.size_bytes, known.checksum) != (self.incoming.size, self.incoming.checksum):
            raise _collision(known)
        self.incoming.sync()
        if not self.incoming.publish(path):
            return None
        sync_folder(path.parent)
        log.info("stored_file_put_back", media_id=known.id)
        return Receipt(known, duplicate=True)

    def _keep_checksum(self, known: Media) -> None:
        """A row from before checksums were kept gets one: its file has just been read, and is ours byte for byte."""
        try:
            with self.database.writing() as session:
                keep_checksum(session, known.id, self.incoming.checksum)
        except DetectionsError as error:  # the answer does not hang on it
            log.warning("checksum_not_kept", media_id=known.id, reason=str(error))
        else:
            known.checksum = self.incoming.checksum

    def _as_new(self) -> Receipt | None:
        """Publish and record; None where the name or the id turns out to be taken."""
        if not self.incoming.publish(self.final):
            return None
        try:
            self.recorder.record(self.recording)
        except CommitUnknown as unknown:
            return self._after_unknown_commit(unknown.__cause__ or unknown)
        except BaseException as error:  # noqa: BLE001 (_after_failure raises it again)
            self._after_failure(error)
            return None
        return Receipt(self.media, duplicate=False)

    def _after_failure(self, error: BaseException) -> None:
        """Leave nothing of a recording that did not happen. Returns where another upload was first: look again."""
        self.incoming.withdraw(self.final)
        if isinstance(error, IntegrityError):
            self._check_taken(error)
        elif not isinstance(error, _NameTaken):
            raise error

    def _after_unknown_commit(self, error: BaseException) -> Receipt:
        """Nothing is deleted: the temporary name stays, as the proof by which a sweep may judge the file later."""
        self.incoming.keep_name()
        recorded = self._recorded() if isinstance(error, Exception) else None
        if recorded is None or recorded.path != self.media.path:
            raise error
        return Receipt(recorded, duplicate=False)

    def _over_unrecorded(self, wait: float) -> Receipt | None:
        """A file has our final name, but no row: adopt, replace or refuse it; None to look again."""
        with hold(self.final, wait=wait) as found:
            if found is None or self._recorded() is not None:
                return None
            if self._has_our_content(found.fd):
                return self._adopt(found)
            if not found.other_names():
                raise MediaIdCollision(f"A file without a record has id {self.media.id} and other content; it stays.")
            return self._replace(found)

    def _adopt(self, found: FoundFile) -> Receipt | None:
        found.sync()
        sync_folder(self.final.parent)
        try:
            with self.database.recording() as connection:
                self.recorder.add(connection, [self.recording])
        except IntegrityError as error:
            self._check_taken(error)
            return None
        for name in found.other_names():
            remove_if_same(name, found.fd)
        log.info("orphan_adopted", media_id=self.media.id)
        return Receipt(self.media, duplicate=False)

    def _replace(self, orphan: FoundFile) -> Receipt | None:
        """The orphan of a crash has other bytes. Holding the id's row keeps every other recorder out meanwhile."""
        proofs = orphan.other_names()
        self.database.bury_failed_commits()
        committing = False
        try:
            with self.database.recording() as connection:
                self.recorder.add(connection, [self.recording])
                for name in (orphan.path, *proofs):  # the proofs last: a crash in between must not leave it without
                    remove_if_same(name, orphan.fd)
                if not self.incoming.publish(self.final):
                    raise _NameTaken
                sync_folder(self.final.parent)
                committing = True
        except BaseException as error:  # noqa: BLE001 (both raise it again)
            if committing and not isinstance(error, IntegrityError | StorageFull):
                return self._after_unknown_commit(error)
            self._after_failure(error)
            return None
        log.info("orphan_replaced", media_id=self.media.id)
        return Receipt(self.media, duplicate=False)

    def _check_taken(self, error: IntegrityError) -> None:
        """Another upload recorded the id first; a conflict of any other kind would only come again."""
        if self._recorded() is None:
            raise error

    def _has_our_content(self, fd: int) -> bool:
        with judged(self.final):
            return same_content(self.incoming.fd, fd)

    def _recorded(self) -> Media | None:
        row = self.database.look_up(_RECORDED, {"id": self.media.id})
        return None if row is None else Media(**dict(zip(_TABLE.columns.keys(), row, strict=True)))


def _collision(known: Media) -> MediaIdCollision:
    reason = (
        f"Media {known.id} ({known.name!r}, {known.size_bytes} bytes) has the same id and other content; "
        "it is untouched, and this file was not stored."
    )
    return MediaIdCollision(reason, known.id)
