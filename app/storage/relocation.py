"""Updates rows whose files were deliberately moved to another folder, and detects rows outside the configured folders.

Each file is checked before its row changes, and rows change in pages: after a kill, the next call continues with the
rest. Messages keep the path that they were created with.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from app.database import Database, Queries
from app.database.models import Media
from app.errors import SettingsError, StorageFailed, Unavailable
from app.media import updates
from app.storage import open_stored

PAGE = 500

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Unmoved:
    """A row that was not changed, and why."""

    media_id: str
    path: str
    reason: str


class Relocation:
    """One relocation. `moved` counts the changed rows."""

    def __init__(self, database: Database, folders: Mapping[str, Path]) -> None:
        self._database = database
        self._queries = Queries(database)
        self._folders = dict(folders)
        self.moved = 0

    def check(self, old: Path, new: Path) -> list[str]:
        """Return the media types whose folder is `new`. Both paths are absolute.

        Raises SettingsError if `new` is not a media folder, or equals `old`.
        """
        types = [media_type for media_type, folder in self._folders.items() if folder == new]
        if not types:
            configured = " and ".join(sorted({str(folder) for folder in self._folders.values()}))
            raise SettingsError(f"NEW must be VIDEOS_DIR or IMAGES_DIR as now configured ({configured}), not {new}.")
        if old == new:
            raise SettingsError(f"OLD and NEW are the same folder, {new}.")
        return types

    def run(self, old: Path, new: Path, on_progress: OnProgress = lambda _done, _total: None) -> Iterator[Unmoved]:
        """Change every row in `old` to `new` if its file is there, and yield the rows that were not changed.

        Raises SettingsError as `check` does. `on_progress` gets the rows done and in total.
        """
        criteria = (Media.media_type.in_(self.check(old, new)), _is_in(old))
        total = self._queries.fetch(_count, criteria)
        after, done = "", 0
        while page := self._queries.fetch(_page, after, criteria):
            moved: dict[str, str] = {}
            for media_id, path, size in page:
                target = new / Path(path).name
                reason = _mismatch(target, size)
                if reason:
                    yield Unmoved(media_id, path, reason)
                else:
                    moved[media_id] = str(target)
            yield from self._move(moved)
            after, done = page[-1][0], done + len(page)
            on_progress(done, total)

    def _move(self, paths: Mapping[str, str]) -> Iterator[Unmoved]:
        """Change the rows in one transaction, or one by one if a path belongs to another row."""
        try:
            self._write(paths)
        except IntegrityError:
            for media_id, path in paths.items():
                try:
                    self._write({media_id: path})
                except IntegrityError:
                    yield Unmoved(media_id, path, "is the file of another media item")

    def _write(self, paths: Mapping[str, str]) -> None:
        if paths:
            updates.change_paths(self._database, paths)
            self.moved += len(paths)


def check_rows(database: Database, folders: Mapping[str, Path]) -> None:
    """Raise SettingsError if rows lie outside the configured folders.

    An unavailable or unmigrated database is ignored here; /readyz reports it.
    """
    inside = or_(*(_is_in(folder) for folder in folders.values()))
    try:
        example, count = Queries(database).fetch(_outside, ~inside)
    except (DBAPIError, Unavailable):
        return
    if example is None:
        return
    old, configured = Path(example).parent, " and ".join(sorted({str(folder) for folder in folders.values()}))
    raise SettingsError(
        f"{count} stored files lie outside VIDEOS_DIR and IMAGES_DIR ({configured}), for example {example}. If the "
        f"folder was moved on purpose, run `flask media relocate {old} NEW`; otherwise correct the settings."
    )


def _outside(session: Session, outside: ColumnElement[bool]) -> tuple[str | None, int]:
    """Return the path of one row outside the folders, and the number of such rows."""
    example = session.scalar(select(Media.path).where(outside).limit(1))
    return example, _count(session, [outside]) if example else 0


def _count(session: Session, criteria: Sequence[ColumnElement[bool]]) -> int:
    return session.scalars(select(func.count()).select_from(Media).where(*criteria)).one()


def _page(session: Session, after: str, criteria: Sequence[ColumnElement[bool]]) -> list[tuple[str, str, int]]:
    rows = session.execute(
        select(Media.id, Media.path, Media.size_bytes).where(*criteria, Media.id > after).order_by(Media.id).limit(PAGE)
    )
    return [(row.id, row.path, row.size_bytes) for row in rows]


def _is_in(folder: Path) -> ColumnElement[bool]:
    prefix = f"{folder}/"
    rest = func.substr(Media.path, len(prefix) + 1)
    return and_(func.substr(Media.path, 1, len(prefix)) == prefix, rest.not_like("%/%"))


def _mismatch(target: Path, size: int) -> str | None:
    try:
        os.close(open_stored(target, size))
    except StorageFailed as error:
        return str(error)
    return None
