"""Removes what interrupted uploads left in `.incoming/`, and the final names that are proven to be theirs.

A locked file belongs to an upload under way and is left alone, as is the file of a resumable upload. A final name is
removed only while this process holds the id's row in a transaction that is rolled back: if the database is still
committing for a client that died, the insert waits and then fails, so that a file about to get its row is never taken
for an orphan. A failed commit is overwritten first, so that crash recovery cannot replay it.

This module begins transactions.
"""

from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.database import Database, Queries, WriteTransaction
from app.database.models import Media, MediaStatus, ResumableUpload
from app.errors import DetectionsError, Unavailable
from app.media.hashing import media_id_of_file
from app.media.status import create_media
from app.media.types import MEDIA_TYPES
from app.outbox.queue import OutboxQueue
from app.storage import Orphan, Storage, lock_orphan, remove_if_same, translate_os_errors
from app.storage.file_systems import PROBE_PREFIX

log = structlog.get_logger()

SWEEP_SECONDS = 3600.0


class _RollBack(Exception):
    """Rolls back a transaction that only serves as a lock."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """The number of removed names: `leftovers` in `.incoming/`, `orphans` among final names."""

    leftovers: int = 0
    orphans: int = 0


class Sweep:
    """Cleans `.incoming/`. Safe beside uploads and other sweeps."""

    def __init__(self, database: Database, queue: OutboxQueue, storage: Storage) -> None:
        self._database = database
        self._queue = queue
        self._storage = storage

    def run(self) -> SweepReport:
        """Remove what interrupted uploads left. What cannot be decided now is left for the next sweep."""
        leftovers = orphans = 0
        for path in self._storage.leftovers():
            try:
                swept = self._sweep(path)
            except Unavailable:
                continue  # still being written, or the database is busy
            except DetectionsError as error:
                log.warning("sweep_skipped", name=path.name, reason=str(error))
                continue
            leftovers += swept is not None
            orphans += swept or 0
        if leftovers:
            log.info("swept", leftovers=leftovers, orphans=orphans)
        return SweepReport(leftovers, orphans)

    def _sweep(self, path: Path) -> int | None:
        """Remove one file and its orphaned final names. Return their number, or None if the file was already gone."""
        with lock_orphan(path, wait=0) as orphan:
            if orphan is None or self._is_unfinished(path):
                return None
            finals = self._final_names(orphan)
            orphans = self._remove_orphans(orphan, finals) if finals else 0
            if path.name.startswith(PROBE_PREFIX):
                remove_if_same(path.parent.parent / path.name, orphan.fd)
            remove_if_same(path, orphan.fd)
            return orphans

    def _is_unfinished(self, path: Path) -> bool:
        """Return whether a resumable upload uses the file. Queried under the file's lock, which its creator holds until
        the row is committed.
        """
        with self._database.read_transaction() as session:
            return session.scalar(select(ResumableUpload.id).where(ResumableUpload.file == str(path))) is not None

    def _final_names(self, orphan: Orphan) -> list[Path]:
        folder = orphan.path.parent.parent
        with translate_os_errors(orphan.path):
            media_id = media_id_of_file(orphan.fd)
        return [path for extension in MEDIA_TYPES if orphan.is_named(path := folder / f"{media_id}.{extension}")]

    def _remove_orphans(self, orphan: Orphan, finals: list[Path]) -> int:
        removed = 0
        self._database.overwrite_failed_commit()
        try:
            with self._database.write_transaction() as transaction:
                self._lock_id(transaction, finals[0])
                for path in finals:
                    remove_if_same(path, orphan.fd)
                    removed += 1
                raise _RollBack
        except _RollBack:
            return removed
        except IntegrityError:
            return self._remove_all_but_recorded(orphan, finals)

    def _remove_all_but_recorded(self, orphan: Orphan, finals: list[Path]) -> int:
        """Remove the names that the id's row does not have; `.jpg` and `.jpeg` may both exist."""
        media = Queries(self._database).fetch(lambda session: session.get(Media, finals[0].stem))
        if media is None:
            raise Unavailable(f"Media {finals[0].stem} was being recorded and now is not; the next sweep decides.")
        unnamed = [path for path in finals if str(path) != media.path]
        for path in unnamed:
            remove_if_same(path, orphan.fd)
        return len(unnamed)

    def _lock_id(self, transaction: WriteTransaction, final: Path) -> None:
        extension = final.suffix.removeprefix(".")
        placeholder = Media(
            id=final.stem,
            name=final.name,
            path=str(final),
            media_type=MEDIA_TYPES[extension].kind,
            media_status=MediaStatus.NEW,
            user_id="sweep",
            size_bytes=0,
            created_at=0.0,
        )
        create_media(transaction, self._queue, placeholder, request_id=None)
