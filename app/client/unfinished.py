"""Which resumable uploads are unfinished, remembered from one run of a command to the next.

Below the user's state folder each of them has a file of a few bytes, the upload's id; nothing of what is uploaded is in
it. Its lock keeps a second command that sends the same file from going on with the same upload.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

FORGOTTEN_AFTER = 30 * 86400.0
"""Seconds after which no service has an unfinished upload any more."""

_MAX_ID_BYTES = 200


class Remembered:
    """The id of one upload, None where there is none yet; on disk as well where `fd` is a file.

    A disk that refuses costs a later run its progress, and no more.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self.upload_id: str | None = None
        if fd is not None:
            with suppress(OSError):
                self.upload_id = os.pread(fd, _MAX_ID_BYTES, 0).decode(errors="replace") or None

    def remember(self, upload_id: str) -> None:
        """An upload was begun."""
        self.upload_id = upload_id
        if self._fd is not None:
            with suppress(OSError):
                os.pwrite(self._fd, upload_id.encode(), 0)

    def forget(self) -> None:
        """The upload has ended."""
        self.upload_id = None
        if self._fd is not None:
            with suppress(OSError):
                os.truncate(self._fd, 0)


class UnfinishedUploads:
    """The folder with a file for each of them; without a folder they are remembered while the command runs only."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @contextmanager
    def remembered(self, *key: object) -> Iterator[Remembered]:
        """What is remembered of the upload that has this key, and is noted of it from here on."""
        name = hashlib.sha256("\0".join(map(str, key)).encode(errors="surrogateescape")).hexdigest()[:32]
        path, fd = self._locked(name)
        if path is None or fd is None:
            yield Remembered(None)
            return
        found = Remembered(fd)
        try:
            yield found
        finally:
            if found.upload_id is None:
                path.unlink(missing_ok=True)
            os.close(fd)

    def _locked(self, name: str) -> tuple[Path | None, int | None]:
        if self._folder is None:
            return None, None
        path = self._folder / name
        try:
            path.parent.mkdir(0o700, parents=True, exist_ok=True)
            _sweep(path.parent)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a home that is full or cannot be written to
            return None, None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another command is sending the file
            os.close(fd)
            return None, None
        return path, fd


def state_folder(environment: Mapping[str, str]) -> Path | None:
    """Where a user's unfinished uploads are remembered, as the XDG base directories say; None without a home."""
    given = Path(environment.get("XDG_STATE_HOME", ""))
    if not given.is_absolute():  # which the standard wants ignored
        try:
            given = Path.home() / ".local" / "state"
        except RuntimeError:
            return None
    return given / "detections" / "uploads"


def _sweep(folder: Path) -> None:
    limit = time.time() - FORGOTTEN_AFTER
    for path in folder.iterdir():
        if path.stat().st_mtime < limit:
            path.unlink(missing_ok=True)
