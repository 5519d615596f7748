"""Remembers unfinished resumable uploads between runs of the command.

Each has a small file in the user's state folder that contains the upload's id and nothing of the uploaded content. Its
lock prevents a second command that sends the same file from using the same upload.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_AGE_SECONDS = 30 * 86400.0
"""Seconds after which no service still has an unfinished upload."""

_MAX_ID_BYTES = 200


class SavedUpload:
    """The id of one upload, None if there is none; also stored in the file `fd`, if given.

    Disk errors are ignored: they only cost a later run its progress.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self.upload_id: str | None = None
        if fd is not None:
            with suppress(OSError):
                self.upload_id = os.pread(fd, _MAX_ID_BYTES, 0).decode(errors="replace") or None

    def save(self, upload_id: str) -> None:
        """Save the id of a new upload."""
        self.upload_id = upload_id
        if self._fd is not None:
            with suppress(OSError):
                os.pwrite(self._fd, upload_id.encode(), 0)

    def delete(self) -> None:
        """Delete the id, because the upload has ended."""
        self.upload_id = None
        if self._fd is not None:
            with suppress(OSError):
                os.truncate(self._fd, 0)


class UnfinishedUploads:
    """The folder of saved uploads. Without a folder they are kept only while the command runs."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @contextmanager
    def open(self, *key: object) -> Iterator[SavedUpload]:
        """Open the saved upload with that key."""
        name = hashlib.sha256("\0".join(map(str, key)).encode(errors="surrogateescape")).hexdigest()[:32]
        path, fd = self._lock(name)
        if path is None or fd is None:
            yield SavedUpload(None)
            return
        saved = SavedUpload(fd)
        try:
            yield saved
        finally:
            if saved.upload_id is None:
                path.unlink(missing_ok=True)
            os.close(fd)

    def _lock(self, name: str) -> tuple[Path | None, int | None]:
        if self._folder is None:
            return None, None
        path = self._folder / name
        try:
            path.parent.mkdir(0o700, parents=True, exist_ok=True)
            _sweep(path.parent)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # the home folder is full or not writable
            return None, None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another command is sending the file
            os.close(fd)
            return None, None
        return path, fd


def state_folder(environment: Mapping[str, str]) -> Path | None:
    """Return the folder for unfinished uploads by the XDG base directory specification; None without a home."""
    base = Path(environment.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # to be ignored by the specification
        try:
            base = Path.home() / ".local" / "state"
        except RuntimeError:
            return None
    return base / "detections" / "uploads"


def _sweep(folder: Path) -> None:
    limit = time.time() - MAX_AGE_SECONDS
    for path in folder.iterdir():
        if path.stat().st_mtime < limit:
            path.unlink(missing_ok=True)
