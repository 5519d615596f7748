"""`flask media verify`: stored files read back, and held against what was kept of them when they came in.

A disk that loses or alters what it was given is found out here and nowhere else. Rows come in pages and files one at a
time, so memory does not grow with either; no transaction is open while a file is read; nothing is removed or repaired.
A running service does not disturb: a file without a row is only called an orphan once its lock was free, which an
upload holds from before it publishes until after its commit, and its row was then asked for again.
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
SETTLE_SECONDS = 30.0
"""How long a file without a row is waited for, while an upload holds it."""

OnProgress = Callable[[int, int], None]
_Kept = Row[str, str, int, str | None]


class Problem(StrEnum):
    """What can be found; the first three are damage."""

    MISSING = "missing"  # a row without its file
    CHANGED = "changed"  # of another size or checksum than when it came in
    UNREADABLE = "unreadable"  # the disk refuses, or something else lies in its place
    ORPHANED = "orphaned"  # a file without a row
    UNCHECKED = "unchecked"  # no checksum was kept, so its size alone could be looked at


DAMAGE = (Problem.MISSING, Problem.CHANGED, Problem.UNREADABLE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem; `media_id` is None for a file that belongs to no media."""

    problem: Problem
    media_id: str | None
    path: str
    detail: str


class Verification:
    """One reading back. `checked` counts files whose checksum was as kept, `recorded` those that were given one."""

    def __init__(self, database: Database, storage: Storage, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._database = database
        self._queries = Queries(database)
        self._storage = storage
        self._settle_seconds = settle_seconds
        self.checked = 0
        self.recorded = 0

    def media(self, ids: Sequence[str] = (), *, record: bool = False, on_progress: OnProgress) -> Iterator[Finding]:
        """What is wrong with the files that rows name, or with those of some media; ids that are unknown are left out.

        With `record`, a file that has no checksum yet gets one, as it is now.
        """
        total = len(ids) or self._queries.fetch(_count)
        for done, row in enumerate(self._rows(ids), 1):
            finding = self._look_at(row, record)
            if finding is not None:
                yield finding
            on_progress(done, total)

    def orphans(self, *, on_progress: OnProgress) -> Iterator[Finding]:
        """Files in the folders that no row names; those of uploads under way are none."""
        done = 0
        published = self._storage.published()
        while paths := list(islice(published, PAGE)):
            unknown = set(paths) - self._named(paths)
            for path in paths:
                finding = self._judge(path) if path in unknown else None
                if finding is not None:
                    yield finding
                done += 1
                on_progress(done, done)

    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that no media has."""
        known = self._queries.fetch(_known, _possible(ids))
        return [media_id for media_id in ids if media_id not in known]

    def _rows(self, ids: Sequence[str]) -> Iterator[_Kept]:
        after, possible = "", _possible(ids)
        while possible or not ids:
            page = self._queries.fetch(_page_after, after, possible)
            if not page:
                return
            yield from page
            after = page[-1].id

    def _look_at(self, row: _Kept, record: bool) -> Finding | None:
        try:
            fd = os.open(row.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return self._read_back(row, fd, record)
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError):
            return _of(row, Problem.MISSING, "there is no such file") if self._named([Path(row.path)]) else None
        except OSError as error:
            reason = "is a symbolic link" if error.errno == errno.ELOOP else str(error.strerror)
            return _of(row, Problem.UNREADABLE, reason)

    def _read_back(self, row: _Kept, fd: int, record: bool) -> Finding | None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return _of(row, Problem.UNREADABLE, "is not a regular file")
        if status.st_size != row.size_bytes:
            return _of(row, Problem.CHANGED, f"has {status.st_size} bytes, had {row.size_bytes}")
        if row.checksum is None and not record:
            return _of(row, Problem.UNCHECKED, "no checksum was kept; --record keeps that of the file as it is now")
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # the disk is asked, not the memory
        found = checksum_of_file(fd)
        if row.checksum is None:
            self._record(row.id, found)
        elif found != row.checksum:
            return _of(row, Problem.CHANGED, f"has checksum {found}, had {row.checksum}")
        else:
            self.checked += 1
        return None

    def _record(self, media_id: str, checksum: str) -> None:
        self.recorded += updates.add_checksum(self._database, media_id, checksum)

    def _named(self, paths: Sequence[Path]) -> set[Path]:
        """Those of `paths` that rows name; no row can hold a name that is not UTF-8."""
        paths = [path for path in paths if os.fsencode(path).decode(errors="replace") == str(path)]
        return self._queries.fetch(_named, paths)

    def _judge(self, path: Path) -> Finding | None:
        if path.is_symlink() or not path.is_file():
            return _orphan(path, "is not a regular file") if os.path.lexists(path) else None
        try:
            with lock_orphan(path, wait=self._settle_seconds) as found:
                if found is None or self._named([path]):
                    return None
                ours = found.other_names()
        except Unavailable:
            return None  # an upload under way holds it
        except StorageFailed as error:
            return _orphan(path, str(error))
        if ours:
            return _orphan(path, "a cut-off upload left it; `flask media recover` removes it")
        return _orphan(path, "no media has it; it is left alone")


def _possible(ids: Sequence[str]) -> list[str]:
    """Those that look like ids: anything else may hold what PostgreSQL takes for no text at all."""
    return [media_id for media_id in ids if MEDIA_ID.fullmatch(media_id)]


def _count(session: Session) -> int:
    return session.scalars(select(func.count()).select_from(Media)).one()


def _known(session: Session, ids: Sequence[str]) -> set[str]:
    return set(session.scalars(select(Media.id).where(Media.id.in_(ids))))


def _named(session: Session, paths: Sequence[Path]) -> set[Path]:
    return set(map(Path, session.scalars(select(Media.path).where(Media.path.in_(map(str, paths))))))


def _page_after(session: Session, after: str, ids: Sequence[str]) -> Sequence[_Kept]:
    page = select(Media.id, Media.path, Media.size_bytes, Media.checksum).where(Media.id > after)
    if ids:
        page = page.where(Media.id.in_(ids))
    return session.execute(page.order_by(Media.id).limit(PAGE)).all()


def _of(row: _Kept, problem: Problem, detail: str) -> Finding:
    return Finding(problem, row.id, row.path, detail)


def _orphan(path: Path, detail: str) -> Finding:
    return Finding(Problem.ORPHANED, None, str(path), detail)
