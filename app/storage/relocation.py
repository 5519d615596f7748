"""Rows whose files were moved to another folder on purpose, and rows that lie outside the folders of the settings.

Each file is looked at before its row is changed, and rows are changed in pages: killed in between, the next call goes
on with those that are left. Messages keep the path that they were written with.
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
class Left:
    """A row that was left as it is, and why."""

    media_id: str
    path: str
    reason: str


class Relocation:
    """One move of rows. `moved` counts those that were changed."""

    def __init__(self, database: Database, folders: Mapping[str, Path]) -> None:
        self._database = database
        self._queries = Queries(database)
        self._folders = dict(folders)
        self.moved = 0

    def check(self, old: Path, new: Path) -> list[str]:
        """The media types whose folder `new` is. Both are absolute.

        Raises SettingsError where it is none's, or where both are the same.
        """
        types = [media_type for media_type, folder in self._folders.items() if folder == new]
        if not types:
            configured = " and ".join(sorted({str(folder) for folder in self._folders.values()}))
            raise SettingsError(f"NEW must be VIDEOS_DIR or IMAGES_DIR as they are set now, {configured}, not {new}.")
        if old == new:
            raise SettingsError(f"OLD and NEW are the same folder, {new}.")
        return types

    def run(self, old: Path, new: Path, on_progress: OnProgress = lambda _done, _total: None) -> Iterator[Left]:
        """Have every row that lies in `old` lie in `new`, where its file is; yields those that are left.

        Raises as `check`.
        """
        among = (Media.media_type.in_(self.check(old, new)), _lies_in(old))
        total = self._queries.fetch(_count, among)
        after, done = "", 0
        while page := self._queries.fetch(_page, after, among):
            moved: dict[str, str] = {}
            for media_id, path, size in page:
                target = new / Path(path).name
                reason = _why_not(target, size)
                if reason:
                    yield Left(media_id, path, reason)
                else:
                    moved[media_id] = str(target)
            yield from self._move(moved)
            after, done = page[-1][0], done + len(page)
            on_progress(done, total)

    def _move(self, paths: Mapping[str, str]) -> Iterator[Left]:
        """All in one transaction; one by one where a path is another row's."""
        try:
            self._write(paths)
        except IntegrityError:
            for media_id, path in paths.items():
                try:
                    self._write({media_id: path})
                except IntegrityError:
                    yield Left(media_id, path, "is another media's file already")

    def _write(self, paths: Mapping[str, str]) -> None:
        if paths:
            updates.change_paths(self._database, paths)
            self.moved += len(paths)


def check_rows(database: Database, folders: Mapping[str, Path]) -> None:
    """Raise SettingsError, one line, where rows lie outside the folders of the settings.

    A database that is away or not migrated is told of at /readyz.
    """
    inside = or_(*(_lies_in(folder) for folder in folders.values()))
    try:
        example, count = Queries(database).fetch(_outside, ~inside)
    except (DBAPIError, Unavailable):
        return
    if example is None:
        return
    old, configured = Path(example).parent, " and ".join(sorted({str(folder) for folder in folders.values()}))
    raise SettingsError(
        f"{count} stored files lie outside VIDEOS_DIR and IMAGES_DIR ({configured}), one of them {example}. If the "
        f"folder was moved on purpose, run `flask media relocate {old} NEW`; otherwise correct the settings."
    )


def _outside(session: Session, outside: ColumnElement[bool]) -> tuple[str | None, int]:
    """The path of one row that lies outside, and how many do."""
    example = session.scalar(select(Media.path).where(outside).limit(1))
    return example, _count(session, [outside]) if example else 0


def _count(session: Session, among: Sequence[ColumnElement[bool]]) -> int:
    return session.scalars(select(func.count()).select_from(Media).where(*among)).one()


def _page(session: Session, after: str, among: Sequence[ColumnElement[bool]]) -> list[tuple[str, str, int]]:
    rows = session.execute(
        select(Media.id, Media.path, Media.size_bytes).where(*among, Media.id > after).order_by(Media.id).limit(PAGE)
    )
    return [(row.id, row.path, row.size_bytes) for row in rows]


def _lies_in(folder: Path) -> ColumnElement[bool]:
    prefix = f"{folder}/"
    rest = func.substr(Media.path, len(prefix) + 1)
    return and_(func.substr(Media.path, 1, len(prefix)) == prefix, rest.not_like("%/%"))


def _why_not(target: Path, size: int) -> str | None:
    try:
        os.close(open_stored(target, size))
    except StorageFailed as error:
        return str(error)
    return None
