"""Clearing up after cut-off uploads: what they left in `.incoming/`, and the final names that prove to be theirs.

A name whose lock is held is an upload under way and is left alone, as is one that a resumable upload goes on with. A
final file is removed only while this process holds the id's row in a transaction that is then rolled back: a database
that is still committing for a client that died makes that insert wait, and then fail, so a file that is about to get
its row is never taken for an orphan; one that failed to commit for it is made sure never to come true.
This module begins transactions.
"""

from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from app.background import BackgroundWork
from app.db import Database
from app.errors import DetectionsError, Unavailable
from app.file_systems import TRIAL_PREFIX
from app.lifecycle import create_media
from app.media_hash import media_id_of_file
from app.media_types import MEDIA_TYPES
from app.models import Media, MediaStatus, ResumableUpload
from app.outbox.queue import OutboxQueue
from app.storage import Orphan, Storage, lock_orphan, remove_if_same, translate_os_errors

log = structlog.get_logger()

SWEEP_EVERY = 3600.0


class _RollBack(Exception):
    """Ends a transaction that was begun for its lock alone."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """How many names were removed: `leftovers` in `.incoming/`, `orphans` among the final ones."""

    leftovers: int = 0
    orphans: int = 0


class Sweep:
    """Clears `.incoming/`; safe beside uploads and other sweeps."""

    def __init__(self, database: Database, queue: OutboxQueue, storage: Storage) -> None:
        self._database = database
        self._queue = queue
        self._storage = storage

    def run(self) -> SweepReport:
        """Remove what cut-off uploads left; what cannot be judged now is left for the next sweep."""
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
        """The number of orphaned final names removed with it; None where the name was gone already."""
        with lock_orphan(path, wait=0) as found:
            if found is None or self._is_unfinished(path):
                return None
            finals = self._final_names(found)
            orphans = self._remove_orphans(found, finals) if finals else 0
            if path.name.startswith(TRIAL_PREFIX):
                remove_if_same(path.parent.parent / path.name, found.fd)
            remove_if_same(path, found.fd)
            return orphans

    def _is_unfinished(self, path: Path) -> bool:
        """Whether a resumable upload goes on with that file later. Looked up behind its lock: who makes such a file
        keeps that until the row is committed."""
        with self._database.reading() as session:
            return session.scalar(select(ResumableUpload.id).where(ResumableUpload.file == str(path))) is not None

    def _final_names(self, found: Orphan) -> list[Path]:
        folder = found.path.parent.parent
        with translate_os_errors(found.path):
            media_id = media_id_of_file(found.fd)
        return [path for extension in MEDIA_TYPES if found.is_named(path := folder / f"{media_id}.{extension}")]

    def _remove_orphans(self, found: Orphan, finals: list[Path]) -> int:
        removed = 0
        self._database.bury_failed_commits()
        try:
            with self._database.recording() as connection:
                self._hold_id(connection, finals[0])
                for path in finals:
                    remove_if_same(path, found.fd)
                    removed += 1
                raise _RollBack
        except _RollBack:
            return removed
        except IntegrityError:
            return self._remove_all_but_recorded(found, finals)

    def _remove_all_but_recorded(self, found: Orphan, finals: list[Path]) -> int:
        """The id has a row, which names at most one of these; `.jpg` and `.jpeg` may both be there."""
        with self._database.reading() as session:
            media = session.get(Media, finals[0].stem)
        if media is None:
            raise Unavailable(f"Media {finals[0].stem} was being recorded and is not now; left for the next sweep.")
        unnamed = [path for path in finals if str(path) != media.path]
        for path in unnamed:
            remove_if_same(path, found.fd)
        return len(unnamed)

    def _hold_id(self, connection: Connection, final: Path) -> None:
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
        create_media(connection, self._queue, placeholder, request_id=None)


class PeriodicSweep(BackgroundWork):
    """Sweeps at the start and from time to time, `every` so many seconds."""

    def __init__(self, sweep: Sweep, every: float = SWEEP_EVERY) -> None:
        super().__init__("sweep", pause=every)
        self._sweep = sweep

    def work(self) -> None:
        """Sweep once."""
        self._sweep.run()
