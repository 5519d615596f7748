"""The media folders: space and files for uploads, and what lies in the folders. Independent of database and HTTP.

Only names in `.incoming/`, and final names that share an inode with one, are ever removed.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.errors import StorageFailed, StorageFull, Unavailable
from app.storage.file_systems import is_unsupported
from app.storage.files import INCOMING, make_folder, sync_folder
from app.storage.folder_probe import FolderProbe, ProbeResult
from app.storage.free_space import FreeSpace
from app.storage.incoming import Incoming
from app.storage.os_errors import translate_os_errors
from app.storage.scratch import ScratchFile

RETRY_SECONDS = 30.0
"""When clients should retry while a folder is unusable."""


class Storage:
    """The media folders, one for each media type. Thread-safe.

    `unusable_reason` returns why nothing may be stored in a folder at the moment, or None.
    """

    def __init__(
        self, folders: Mapping[str, Path], unusable_reason: Callable[[Path], str | None] = lambda _folder: None
    ) -> None:
        self._folders = dict(folders)
        self.unusable_reason = unusable_reason
        self._free_space = FreeSpace([folder / INCOMING for folder in self._folders.values()])
        self._probes = {folder: FolderProbe(folder, folder / INCOMING) for folder in self._folders.values()}

    def prepare(self) -> None:
        """Create missing folders. Raises StorageFailed."""
        for folder in self._folders.values():
            make_folder(folder)

    def ensure_fit(self) -> None:
        """Raise StorageFailed if a folder's file system does not support publishing."""
        results = [(folder, probe.result(max_age=0).missing) for folder, probe in self._probes.items()]
        unfit = "; ".join(
            f"the folder {folder} cannot take uploads: {missing}" for folder, missing in results if missing
        )
        if unfit:
            raise StorageFailed(f"{unfit[0].upper()}{unfit[1:]}.")

    def probe_folder(self, folder: Path) -> ProbeResult:
        """Return the folder's probe result, at most some seconds old."""
        return self._probes[folder].result()

    @property
    def folders(self) -> list[Path]:
        return list(dict.fromkeys(self._folders.values()))

    def folder_of(self, media_type: str) -> Path:
        """Return the folder of that media type."""
        return self._folders[media_type]

    def final_path(self, media_type: str, media_id: str, extension: str) -> Path:
        """Return the path of a media item's published file."""
        return self._folders[media_type] / f"{media_id}.{extension}"

    def contains(self, path: Path) -> bool:
        """Return whether `path` is a regular file directly in a media folder."""
        return path.parent in self.folders and not path.is_symlink() and path.is_file()

    def admit(self, declared_bytes: int) -> None:
        """Raise StorageFull if no folder has that much space, or Unavailable if all are unusable. Reserves nothing."""
        if all(self._refusal(folder) for folder in self.folders):
            raise Unavailable(str(self._refusal(self.folders[0])), RETRY_SECONDS)
        for folder in self.folders:
            with translate_os_errors(folder):
                if self._free_space.has(folder, declared_bytes):
                    return
        raise StorageFull(f"There is no space for {declared_bytes} bytes.")

    @contextmanager
    def incoming(self, media_type: str, declared_bytes: int | None) -> Iterator[Incoming]:
        """Yield a file to write an upload into; its declared size counts against the free space.

        The temporary name is removed at the end, unless `keep_name` was called. Raises StorageFull, or Unavailable if
        the folder is unusable.
        """
        folder = self._usable_folder(media_type)
        with translate_os_errors(folder), self._free_space.admission(folder, declared_bytes or 0):
            self._ensure_space(media_type, declared_bytes)
            incoming = Incoming.create(folder, declared_bytes or 0)
        try:
            with incoming:
                yield incoming
        except StorageFailed as error:
            if is_unsupported(error.__cause__):
                self._probes[folder].result(max_age=0)  # so that the next upload is refused before its body
            raise

    def create_resumable(self, media_type: str, declared_bytes: int | None) -> Incoming:
        """Return a file that persists between requests; the caller closes it.

        Its declared size counts against the free space until its name is removed. Raises as `incoming` does.
        """
        folder = self._usable_folder(media_type)
        with translate_os_errors(folder), self._free_space.admission(folder, declared_bytes or 0):
            self._ensure_space(media_type, declared_bytes)
            incoming = Incoming.create(folder, declared_bytes or 0, resumable=True)
        sync_folder(folder / INCOMING)
        return incoming

    @contextmanager
    def scratch(self, media_type: str, declared_bytes: int | None) -> Iterator[ScratchFile]:
        """Yield an unnamed file in that type's folder, removed at the end of the block or of the process.

        Raises StorageFull, or Unavailable if the folder is unusable.
        """
        folder = self._usable_folder(media_type)
        with translate_os_errors(folder):
            self._ensure_space(media_type, declared_bytes)
        with ScratchFile(folder / INCOMING) as scratch:
            yield scratch

    def published(self) -> Iterator[Path]:
        """Yield everything in the folders except folders, in no order."""
        for folder in self.folders:
            with translate_os_errors(folder), os.scandir(folder) as entries:
                yield from (Path(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False))

    def leftovers(self) -> Iterator[Path]:
        """Yield every file in `.incoming/` of the usable folders."""
        for folder in self.folders:
            if self.unusable_reason(folder):
                continue
            with translate_os_errors(folder):
                names = sorted((folder / INCOMING).iterdir())
            yield from (name for name in names if name.is_file() and not name.is_symlink())

    def free_bytes(self, folder: Path, enough: int = 0) -> int:
        """Return the free bytes, less what uploads to the same disk have declared and not yet written.

        If that is less than `enough`, uploads whose process died are not counted.
        """
        with translate_os_errors(folder):
            return self._free_space.available(folder, enough)

    def _usable_folder(self, media_type: str) -> Path:
        folder = self._folders[media_type]
        reason = self._refusal(folder)
        if reason:
            raise Unavailable(reason, RETRY_SECONDS)
        return folder

    def _ensure_space(self, media_type: str, declared_bytes: int | None) -> None:
        if declared_bytes and not self._free_space.has(self._folders[media_type], declared_bytes):
            raise StorageFull(f"There is no space for {declared_bytes} bytes in the {media_type} folder.")

    def _refusal(self, folder: Path) -> str | None:
        """Return why nothing may be stored in the folder now, or None."""
        reason = self.unusable_reason(folder)
        if reason:
            return reason
        missing = self._probes[folder].missing()
        return f"The folder {folder.name} cannot take uploads: {missing}." if missing else None
