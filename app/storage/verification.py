"""Reads stored files back and compares them with their rows, for `flask media verify`.

This detects disks that lose or change data. Rows are read in pages and files one at a time, so memory does not grow; no
transaction is open while a file is read; nothing is removed or repaired. It can run beside the service: a file without
a row counts as an orphan only if its lock was free, which an upload holds from before publishing until after its
commit, and if a second query found no row either.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from app.database import Database, Queries
from app.database.models import Media
from app.errors import StorageFailed, Unavailable
from app.media import updates
from app.media.checksum import checksum_of_file
from app.media.hashing import MEDIA_ID
from app.storage import Storage, lock_orphan

PAGE = 500
LOCK_WAIT_SECONDS = 30.0
"""How long to wait for a file without a row while an upload holds its lock."""

OnProgress = Callable[[int, int], None]
_StoredRow = Row[str, str, int, str | None]


class Problem(StrEnum):
    """The kinds of findings; the first three are damage."""

    MISSING = "missing"  # a row without its file
    CHANGED = "changed"  # its size or checksum differs from the row
    UNREADABLE = "unreadable"  # the disk fails, or it is not a regular file
    ORPHANED = "orphaned"  # a file without a row
    UNCHECKED = "unchecked"  # the row has no checksum; only the size was compared


DAMAGE = (Problem.MISSING, Problem.CHANGED, Problem.UNREADABLE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem. `media_id` is None for a file without a row."""

    problem: Problem
    media_id: str | None
    path: str
    detail: str


class Verification:
    """One verification. `checked` counts files with the right checksum, `recorded` those that were given one."""

    def __init__(self, database: Database, storage: Storage, *, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        self._database = database
        self._queries = Queries(database)
        self._storage = storage
        self._lock_wait_seconds = lock_wait_seconds
        self.checked = 0
        self.recorded = 0

    def media(self, ids: Sequence[str] = (), *, record: bool = False, on_progress: OnProgress) -> Iterator[Finding]:
        """Yield the problems of the files of all rows, or of some media items; unknown ids are skipped.

        With `record`, files without a checksum get one, as they are now. `on_progress` gets the items done and in
        total.
        """
        total = len(ids) or self._queries.fetch(_count)
        for done, row in enumerate(self._rows(ids), 1):
            finding = self._check_row(row, record)
            if finding is not None:
                yield finding
            on_progress(done, total)

    def orphans(self, *, on_progress: OnProgress) -> Iterator[Finding]:
        """Yield files without a row, except those of uploads under way."""
        done = 0
        published = self._storage.published()
        while paths := list(islice(published, PAGE)):
            unknown = set(paths) - self._named(paths)
            for path in paths:
                finding = self._check_unknown(path) if path in unknown else None
                if finding is not None:
                    yield finding
                done += 1
                on_progress(done, done)

    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that no media item has."""
        known = self._queries.fetch(_known, _well_formed(ids))
        return [media_id for media_id in ids if media_id not in known]

    def _rows(self, ids: Sequence[str]) -> Iterator[_StoredRow]:
        after, possible = "", _well_formed(ids)
        while possible or not ids:
            page = self._queries.fetch(_page_after, after, possible)
            if not page:
                return
            yield from page
            after = page[-1].id

    def _check_row(self, row: _StoredRow, record: bool) -> Finding | None:
        try:
            fd = os.open(row.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return self._compare(row, fd, record)
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError):
            return _finding(row, Problem.MISSING, "there is no such file") if self._named([Path(row.path)]) else None
        except OSError as error:
            reason = "is a symbolic link" if error.errno == errno.ELOOP else str(error.strerror)
            return _finding(row, Problem.UNREADABLE, reason)

    def _compare(self, row: _StoredRow, fd: int, record: bool) -> Finding | None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return _finding(row, Problem.UNREADABLE, "is not a regular file")
        if status.st_size != row.size_bytes:
            return _finding(row, Problem.CHANGED, f"has {status.st_size} bytes, had {row.size_bytes}")
        if row.checksum is None and not record:
            return _finding(row, Problem.UNCHECKED, "the row has no checksum; --record stores the file's present one")
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # read from the disk, not from the page cache
        found = checksum_of_file(fd)
        if row.checksum is None:
            self._record(row.id, found)
        elif found != row.checksum:
            return _finding(row, Problem.CHANGED, f"has checksum {found}, had {row.checksum}")
        else:
            self.checked += 1
        return None

    def _record(self, media_id: str, checksum: str) -> None:
        self.recorded += updates.add_checksum(self._database, media_id, checksum)

    def _named(self, paths: Sequence[Path]) -> set[Path]:
        """Return the paths that rows have. No row has a name that is not UTF-8."""
        paths = [path for path in paths if os.fsencode(path).decode(errors="replace") == str(path)]
        return self._queries.fetch(_named, paths)

    def _check_unknown(self, path: Path) -> Finding | None:
        if path.is_symlink() or not path.is_file():
            return _orphan(path, "is not a regular file") if os.path.lexists(path) else None
        try:
            with lock_orphan(path, wait=self._lock_wait_seconds) as orphan:
                if orphan is None or self._named([path]):
                    return None
                temporary_names = orphan.other_names()
        except Unavailable:
            return None  # an upload under way holds the lock
        except StorageFailed as error:
            return _orphan(path, str(error))
        if temporary_names:
            return _orphan(path, "an interrupted upload left it; `flask media recover` removes it")
        return _orphan(path, "no media item has it; it is left alone")


def _well_formed(ids: Sequence[str]) -> list[str]:
    """Return those that have the form of an id; others may contain what PostgreSQL does not accept as text."""
    return [media_id for media_id in ids if MEDIA_ID.fullmatch(media_id)]


def _count(session: Session) -> int:
    return session.scalars(select(func.count()).select_from(Media)).one()


def _known(session: Session, ids: Sequence[str]) -> set[str]:
    return set(session.scalars(select(Media.id).where(Media.id.in_(ids))))


def _named(session: Session, paths: Sequence[Path]) -> set[Path]:
    return set(map(Path, session.scalars(select(Media.path).where(Media.path.in_(map(str, paths))))))


def _page_after(session: Session, after: str, ids: Sequence[str]) -> Sequence[_StoredRow]:
    page = select(Media.id, Media.path, Media.size_bytes, Media.checksum).where(Media.id > after)
    if ids:
        page = page.where(Media.id.in_(ids))
    return session.execute(page.order_by(Media.id).limit(PAGE)).all()


def _finding(row: _StoredRow, problem: Problem, detail: str) -> Finding:
    return Finding(problem, row.id, row.path, detail)


def _orphan(path: Path, detail: str) -> Finding:
    return Finding(Problem.ORPHANED, None, str(path), detail)
