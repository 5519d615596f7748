"""Checks that each media folder holds this database's files, at the start and while the service runs.

An unmounted disk, or another one in its place, looks like an empty media folder: uploads would go there, and every
stored file would be missing. Each folder therefore has a marker with the database's id (`app.storage.folder_marker`),
and nothing is stored in a folder without it. The marker also tells how far the database had come, which reveals a
database restored from an earlier copy (`app.database.history`).

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
    """A folder that now has this database's marker. `before` is the id in its previous marker, if any."""

    folder: Path
    before: str | None
    changed: bool


class FolderOwnership:
    """The media folders of one process, one for each media type. Thread-safe."""

    def __init__(self, database: Database, folders: Mapping[str, Path]) -> None:
        self._database = database
        self._folders = dict(folders)
        self._instance: str | None = None
        self._verified: dict[Path, tuple[str, _Version]] = {}
        self._reasons: dict[Path, str | None] = {}

    @property
    def paths(self) -> list[Path]:
        return list(dict.fromkeys(self._folders.values()))

    @property
    def are_open(self) -> bool:
        """Whether `open` has succeeded."""
        return self._instance is not None

    def open(self) -> None:
        """Check every folder, create what is missing at the very first start, and detect a restored database.

        Raises SettingsError if a folder is not this database's, StorageFailed if it cannot be used, and Unavailable if
        the database cannot be queried.
        """
        markers = {folder: folder_marker.read(folder) for folder in self.paths}
        try:
            stored = Queries(self._database).fetch(history.get)
        except DBAPIError as error:
            raise Unavailable("The database cannot be queried for the media folders that belong to it.", 5) from error
        stored = stored or self._first_start(markers)
        compared = history.compare(stored, markers)
        for folder, marker in compared.foreign.items():
            raise SettingsError(_not_ours(folder, marker))
        for folder in self.paths:
            make_folder(folder)
        self._instance = stored.instance
        if compared.ahead is not None:
            self.detect_restore()

    @property
    def known_reasons(self) -> dict[Path, str | None]:
        """The last result of `unusable_reason` by folder, for callers that must not wait for a disk."""
        return {folder: self._reasons.get(folder) for folder in self.paths}

    def unusable_reason(self, folder: Path) -> str | None:
        """Return why nothing may be stored in the folder now, or None. Costs one stat().

        The text contains the folder's name but not its path, because /readyz is public. Changes are logged once.
        """
        if self._is_unchanged(folder):
            return None
        reason = self._reason(folder)
        if reason != self._reasons.get(folder):
            self._reasons[folder] = reason
            if reason:
                log.error("media_folder_unusable", folder=str(folder), reason=reason)
            else:
                log.info("media_folder_usable_again", folder=str(folder))
        return reason

    def _is_unchanged(self, folder: Path) -> bool:
        """Return whether the marker is the file last seen. Every upload calls this, so it must be quick."""
        verified = self._verified.get(folder)
        if verified is None or self._reasons.get(folder):
            return False
        path, version = verified
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
            self._verified[folder] = str(path), version
        except StorageFailed as error:
            missing = isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
            return _not_ours(folder.name, None) if missing else str(error)
        except SettingsError:
            return f"A media folder does not belong to this database; the log says which. `{ACCEPT}` accepts it."
        except DetectionsError as error:
            return f"The media folder {folder.name} cannot be checked: {error}"
        return None

    def detect_restore(self) -> bool:
        """Begin a new epoch if the database is behind a marker, and log it. Return whether it was.

        Call it when the database may have been replaced: at the start and after a lost connection.
        """
        return self._update_history(count=False)

    def advance_counter(self) -> None:
        """Advance the database's counter, because messages were committed, and update the markers.

        A database that is now behind a marker was replaced while this process ran.
        """
        self._update_history(count=True)

    def _update_history(self, *, count: bool) -> bool:
        """In one transaction, begin a new epoch if a marker is ahead, or else advance the counter if `count`.

        Return whether a new epoch began.
        """
        markers = {folder: folder_marker.read(folder) for folder in self.paths}
        with self._database.write_transaction() as session:
            stored = history.get(session)
            ahead = history.compare(stored, markers).ahead if stored else None
            if ahead is not None:
                stored = history.begin_epoch(session, self._database.now, [ahead])
            elif count:
                stored = history.advance(session)
        if stored is not None and (ahead is not None or count):
            self.write_markers(stored)
        if stored is None or ahead is None:
            return False
        log.error(
            "database_restored",
            detail=f"The database is behind the media folders' markers: it was restored from an earlier copy. Messages "
            f"continue in epoch {stored.reached.epoch}. Run: {'; '.join(AFTER_RESTORE)}.",
            epoch=stored.reached.epoch,
        )
        return True

    def write_markers(self, stored: history.DatabaseIdentity) -> None:
        """Write the database's progress to the markers, except those of other databases or that cannot be written."""
        for folder in self.paths:
            try:
                folder_marker.advance(folder, stored.marker)
            except DetectionsError as error:
                log.warning("marker_not_written", folder=str(folder), reason=str(error))

    def accept(self) -> list[Accepted]:
        """Mark every folder as this database's, on a person's request. Return what changed for each.

        A new epoch begins if no marker proves that the database was not restored, and if a folder belonged to another
        database, whose sequence numbers the annotations service has seen.
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

    def _first_start(self, markers: dict[Path, Marker | None]) -> history.DatabaseIdentity:
        """Create the database's id and the markers in one transaction, so that no process sees half of it."""
        with self._database.write_transaction() as session:
            stored = history.get(session)
            if stored is None:
                stored = history.make(session)
                for folder, marker in markers.items():
                    if marker and marker.reached.counter:  # a counter of 0 is left by an interrupted first start
                        raise SettingsError(_not_ours(folder, marker))
                self._check_newest(session)
                for folder in markers:
                    make_folder(folder)
                    folder_marker.place(folder, stored.marker)
        self._database.record_server()
        markers |= {folder: folder_marker.read(folder) for folder in markers}
        return stored

    def _check_newest(self, session: Session) -> None:
        """Check that the newest file exists, for a database that is older than the markers."""
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
        f"The media folder {folder} {what}. Check that its disk is mounted and that "
        f"DATABASE_URL is right. If the folder or the database was replaced on purpose, run `{ACCEPT}`."
    )


def check_folders(database: Database, folders: Mapping[str, Path]) -> bool:
    """Check the folders at the start, before processes are forked. Raises SettingsError or StorageFailed as `open`.

    Returns False if the database is unavailable or not migrated: that does not stop the start, and the server checks
    again.
    """
    try:
        FolderOwnership(database, folders).open()
    except Unavailable as error:
        log.warning("media_folders_not_open", reason=str(error))
        return False
    return True
