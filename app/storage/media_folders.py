"""Whether each media folder is the one that holds this database's files, at the start and while the service runs.

A disk that is not mounted, or another one in its place, looks like an empty media folder: uploads would go to it, and
every stored file would be missing. So each folder has a marker, written once, with the database's id
(`app.storage.folder_marker`), and nothing is stored in a folder without it. The marker also holds how far the database
had come, and so tells a database that was restored from an earlier copy (`app.database.history`).
This module begins transactions.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.database import Database, Queries, history
from app.database.models import Media
from app.database.postgres_failover import AFTER_RESTORE
from app.errors import DetectionsError, SettingsError, StorageFailed, Unavailable
from app.storage import folder_marker, make_folder, translate_os_errors
from app.storage.folder_marker import Marker

log = structlog.get_logger()

ACCEPT = "flask media accept-folders"

_Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A folder that has this database's marker now; `before` is the instance of the marker that it had, if any."""

    folder: Path
    before: str | None
    changed: bool


class MediaFolders:
    """The folders of one process, one for each media type. Safe to use from several threads."""

    def __init__(self, database: Database, folders: Mapping[str, Path]) -> None:
        self._database = database
        self._folders = dict(folders)
        self._instance: str | None = None
        self._seen: dict[Path, tuple[str, _Version]] = {}
        self._reasons: dict[Path, str | None] = {}

    @property
    def paths(self) -> list[Path]:
        return list(dict.fromkeys(self._folders.values()))

    @property
    def are_open(self) -> bool:
        """Whether `open` has succeeded: what the database says of itself is known."""
        return self._instance is not None

    def open(self) -> None:
        """Check every folder, make what is missing at the very first start, and notice a restored database.

        Raises SettingsError, one line, where a folder is not the one that it was; StorageFailed where it cannot be
        used; Unavailable where the database cannot be asked.
        """
        markers = {folder: folder_marker.read(folder) for folder in self.paths}
        try:
            stored = Queries(self._database).fetch(history.get)
        except DBAPIError as error:
            raise Unavailable("The database cannot be asked which media folders are its own.", 5) from error
        stored = stored or self._first_start(markers)
        compared = history.compare(stored, markers)
        for folder, marker in compared.foreign.items():
            raise SettingsError(_not_ours(folder, marker))
        for folder in self.paths:
            make_folder(folder)
        self._instance = stored.instance
        if compared.ahead is not None:
            self.notice_restoration()

    @property
    def known_reasons(self) -> dict[Path, str | None]:
        """What `unusable_reason` returned last for each folder: for whoever must not wait for a disk."""
        return {folder: self._reasons.get(folder) for folder in self.paths}

    def unusable_reason(self, folder: Path) -> str | None:
        """Why nothing may be stored in the folder now; None where it is the one that it was. Costs one `stat`.

        It names the folder without its path, because /readyz tells it to everybody. A change is logged, once.
        """
        if self._is_as_seen(folder):
            return None
        reason = self._reason(folder)
        if reason != self._reasons.get(folder):
            self._reasons[folder] = reason
            if reason:
                log.error("media_folder_unusable", folder=str(folder), reason=reason)
            else:
                log.info("media_folder_usable_again", folder=str(folder))
        return reason

    def _is_as_seen(self, folder: Path) -> bool:
        """Whether the folder's marker is the very file that was found to be ours: every upload asks, so it is quick."""
        seen = self._seen.get(folder)
        if seen is None or self._reasons.get(folder):
            return False
        path, version = seen
        try:
            return _version(os.stat(path)) == version  # noqa: PTH116 (Path.stat takes twice as long)
        except OSError:
            return False

    def _reason(self, folder: Path) -> str | None:
        try:
            if self._instance is None:
                self.open()
            path = folder_marker.path_of(folder)
            with translate_os_errors(folder):
                version = _version(path.stat())
            marker = folder_marker.read(folder)
            if marker is None or marker.instance != self._instance:
                return _not_ours(folder.name, marker)
            self._seen[folder] = str(path), version
        except StorageFailed as error:
            missing = isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
            return _not_ours(folder.name, None) if missing else str(error)
        except SettingsError:
            return f"A media folder is not the one that it was: the log says which. `{ACCEPT}` accepts it."
        except DetectionsError as error:
            return f"Whether the media folder {folder.name} is the one that it was cannot be told: {error}"
        return None

    def notice_restoration(self) -> bool:
        """Begin a new epoch if the database is behind what a marker says, and say so in one line.

        To be called whenever the database may have become another one: at a start, and where a connection was lost.
        """
        return self._go_on(count=False)

    def count_on(self) -> None:
        """Count on, because messages were committed, and have the markers say so.

        A database that is behind them by now is another one than before, put in its place while this process ran.
        """
        self._go_on(count=True)

    def _go_on(self, *, count: bool) -> bool:
        """In one transaction, begin a new epoch where a marker is ahead, or count on if that is wanted; returns which
        it was."""
        markers = {folder: folder_marker.read(folder) for folder in self.paths}
        with self._database.write_transaction() as session:
            stored = history.get(session)
            ahead = history.compare(stored, markers).ahead if stored else None
            if ahead is not None:
                stored = history.begin_epoch(session, self._database.now, [ahead])
            elif count:
                stored = history.advance(session)
        if stored is not None and (ahead is not None or count):
            self.advance(stored)
        if stored is None or ahead is None:
            return False
        log.error(
            "database_restored",
            detail=f"The database is behind the media folders' markers: it was restored from an earlier copy. Messages "
            f"go on in epoch {stored.reached.epoch}. Run: {'; '.join(AFTER_RESTORE)}.",
            epoch=stored.reached.epoch,
        )
        return True

    def advance(self, stored: history.Stored) -> None:
        """Have the markers say how far the database has come; one that is not ours, or cannot be written, is left."""
        for folder in self.paths:
            try:
                folder_marker.advance(folder, stored.marker)
            except DetectionsError as error:
                log.warning("marker_not_written", folder=str(folder), reason=str(error))

    def accept(self) -> list[Accepted]:
        """Make every folder this database's, because a person says so; returns what became of each.

        A new epoch begins where no marker tells that the database has not been restored, and where a folder was another
        database's, whose numbers the annotations service has seen.
        """
        markers = {folder: folder_marker.read_if_possible(folder) for folder in self.paths}
        for folder in self.paths:
            make_folder(folder)
        with self._database.write_transaction() as session:
            known = history.get(session)
            stored = known or history.make(session)
            compared = history.compare(stored, markers)
            others = [marker.reached for marker in markers.values() if marker]
            all_unknown = known is not None and len(compared.foreign) == len(markers)
            if all_unknown or compared.ahead or any(compared.foreign.values()):
                stored = history.begin_epoch(session, self._database.now, others)
        for folder in self.paths:
            folder_marker.place(folder, stored.marker)
        self._instance = stored.instance
        return [
            Accepted(folder, marker.instance if marker else None, folder in compared.foreign)
            for folder, marker in markers.items()
        ]

    def _first_start(self, markers: dict[Path, Marker | None]) -> history.Stored:
        """The database gets its id and the folders their markers, in one transaction: no other process sees half."""
        with self._database.write_transaction() as session:
            stored = history.get(session)
            if stored is None:
                stored = history.make(session)
                for folder, marker in markers.items():
                    if marker and marker.reached.counter:  # one that counts nothing is left of a first start cut short
                        raise SettingsError(_not_ours(folder, marker))
                self._check_newest(session)
                for folder in markers:
                    make_folder(folder)
                    folder_marker.place(folder, stored.marker)
        self._database.record_server()
        markers |= {folder: folder_marker.read(folder) for folder in markers}
        return stored

    def _check_newest(self, session: Session) -> None:
        """A database from before there were markers knows its folder by its newest file."""
        for media_type, folder in self._folders.items():
            path = session.scalar(
                select(Media.path).where(Media.media_type == media_type).order_by(Media.created_at.desc()).limit(1)
            )
            if path is not None and Path(path).parent == folder and not Path(path).exists():
                raise SettingsError(_not_ours(folder, None))


def _version(stat: os.stat_result) -> _Version:
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns


def _not_ours(folder: Path | str, marker: Marker | None) -> str:
    what = f"belongs to another database ({marker.instance})" if marker else "has no marker of this database"
    return (
        f"The media folder {folder} {what}, so it is not the one that holds its files. Is its disk mounted, and is "
        f"DATABASE_URL right? If the folder or the database was replaced on purpose, run `{ACCEPT}`."
    )


def check_folders(database: Database, folders: Mapping[str, Path]) -> bool:
    """The check of a start, before there are processes: raises SettingsError or StorageFailed as `open` does.

    A database that is away or not migrated stops no start: the server says so at /readyz, and checks again. False then.
    """
    try:
        MediaFolders(database, folders).open()
    except Unavailable as error:
        log.warning("media_folders_not_open", reason=str(error))
        return False
    return True
