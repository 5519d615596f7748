"""The media folders: where uploads get room and a file to write into, and what lies in them. Nothing here knows of the
database or of HTTP.

Only names in `.incoming/`, and final names that share an inode with one, are ever removed.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.errors import StorageFailed, StorageFull, Unavailable
from app.storage.file_systems import is_inability
from app.storage.files import INCOMING, make_folder, sync_folder
from app.storage.folder_probe import FolderTrial, Outcome
from app.storage.free_space import Room
from app.storage.incoming import Incoming
from app.storage.os_errors import translate_os_errors
from app.storage.scratch import Scratch

RETRY_SECONDS = 30.0
"""When a client may come again while a folder is missing."""


class Storage:
    """The folders of this service, one for each media type. Safe to use from several threads.

    `unusable_reason` tells why nothing may be stored in a folder at this moment, None where it may.
    """

    def __init__(
        self, folders: Mapping[str, Path], unusable_reason: Callable[[Path], str | None] = lambda _folder: None
    ) -> None:
        self._folders = dict(folders)
        self.unusable_reason = unusable_reason
        self._room = Room([folder / INCOMING for folder in self._folders.values()])
        self._trials = {folder: FolderTrial(folder, folder / INCOMING) for folder in self._folders.values()}

    def prepare(self) -> None:
        """Make the folders where they are missing; raises StorageFailed where that cannot be done."""
        for folder in self._folders.values():
            make_folder(folder)

    def ensure_fit(self) -> None:
        """Raise StorageFailed, with one line, where a folder's file system cannot do what publishing needs."""
        found = [(folder, trial.outcome(max_age=0).missing) for folder, trial in self._trials.items()]
        unfit = "; ".join(f"the folder {folder} cannot take uploads: {missing}" for folder, missing in found if missing)
        if unfit:
            raise StorageFailed(f"{unfit[0].upper()}{unfit[1:]}.")

    def try_folder(self, folder: Path) -> Outcome:
        """What publishing a file there comes to, tried within the last seconds."""
        return self._trials[folder].outcome()

    @property
    def folders(self) -> list[Path]:
        return list(dict.fromkeys(self._folders.values()))

    def folder_of(self, media_type: str) -> Path:
        """Where media of that type belong."""
        return self._folders[media_type]

    def final_path(self, media_type: str, media_id: str, extension: str) -> Path:
        """Where a media of that id belongs."""
        return self._folders[media_type] / f"{media_id}.{extension}"

    def contains(self, path: Path) -> bool:
        """Is that the path of a file directly in one of our folders?"""
        return path.parent in self.folders and not path.is_symlink() and path.is_file()

    def admit(self, declared_bytes: int) -> None:
        """Raise StorageFull where no folder has room for so many bytes more, Unavailable where none may be stored in;
        nothing is reserved."""
        if all(self._refusal(folder) for folder in self.folders):
            raise Unavailable(str(self._refusal(self.folders[0])), RETRY_SECONDS)
        for folder in self.folders:
            with translate_os_errors(folder):
                if self._room.has(folder, declared_bytes):
                    return
        raise StorageFull(f"There is no room for {declared_bytes} bytes.")

    @contextmanager
    def incoming(self, media_type: str, declared_bytes: int | None) -> Iterator[Incoming]:
        """A file to write into, counted against the free space while it is under way.

        Its temporary name is gone at the end, unless `keep_name` was called on it. Raises StorageFull, or Unavailable
        where the folder was found to lack what publishing needs.
        """
        folder = self._usable(media_type)
        with translate_os_errors(folder), self._room.admission(folder, declared_bytes or 0):
            self._ensure_room(media_type, declared_bytes)
            incoming = Incoming.create(folder, declared_bytes or 0)
        try:
            with incoming:
                yield incoming
        except StorageFailed as error:
            if is_inability(error.__cause__):
                self._trials[folder].outcome(max_age=0)  # the next upload is refused before it comes
            raise

    def create_resumable(self, media_type: str, declared_bytes: int | None) -> Incoming:
        """A file that stays between the requests that write it, and whose promise counts against the free space until
        its name is gone; the caller's to close. Raises as `incoming` does."""
        folder = self._usable(media_type)
        with translate_os_errors(folder), self._room.admission(folder, declared_bytes or 0):
            self._ensure_room(media_type, declared_bytes)
            incoming = Incoming.create(folder, declared_bytes or 0, resumable=True)
        sync_folder(folder / INCOMING)
        return incoming

    @contextmanager
    def scratch(self, media_type: str, declared_bytes: int | None) -> Iterator[Scratch]:
        """A file without a name beside that type's files, gone at the end of the block or with this process.

        Raises StorageFull where there is no room for so many bytes, or Unavailable as `incoming` does.
        """
        folder = self._usable(media_type)
        with translate_os_errors(folder):
            self._ensure_room(media_type, declared_bytes)
        with Scratch(folder / INCOMING) as scratch:
            yield scratch

    def published(self) -> Iterator[Path]:
        """Everything in the folders that is no folder itself, in no order and without keeping a list."""
        for folder in self.folders:
            with translate_os_errors(folder), os.scandir(folder) as entries:
                yield from (Path(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False))

    def leftovers(self) -> Iterator[Path]:
        """Every name in `.incoming/` of the folders that may be stored in, whoever left it there."""
        for folder in self.folders:
            if self.unusable_reason(folder):
                continue
            with translate_os_errors(folder):
                names = sorted((folder / INCOMING).iterdir())
            yield from (name for name in names if name.is_file() and not name.is_symlink())

    def room(self, folder: Path, enough: int = 0) -> int:
        """Free bytes, less what uploads to the same disk, by any process, have declared and not yet written.

        Where they seem fewer than `enough`, uploads whose process is dead are not counted.
        """
        with translate_os_errors(folder):
            return self._room.left(folder, enough)

    def _usable(self, media_type: str) -> Path:
        folder = self._folders[media_type]
        reason = self._refusal(folder)
        if reason:
            raise Unavailable(reason, RETRY_SECONDS)
        return folder

    def _ensure_room(self, media_type: str, declared_bytes: int | None) -> None:
        if declared_bytes and not self._room.has(self._folders[media_type], declared_bytes):
            raise StorageFull(f"There is no room for {declared_bytes} bytes in the {media_type} folder.")

    def _refusal(self, folder: Path) -> str | None:
        """Why nothing may be stored in the folder now: it is not the one that it was, or cannot publish files."""
        reason = self.unusable_reason(folder)
        if reason:
            return reason
        missing = self._trials[folder].missing()
        return f"The folder {folder.name} cannot take uploads: {missing}." if missing else None
