"""Locks a file without a row while its fate is decided."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import StorageFailed, Unavailable
from app.storage.files import INCOMING, is_same_file, open_regular
from app.storage.os_errors import translate_os_errors

LOCK_POLL_SECONDS = 0.02


class Orphan:
    """A locked file that may lack a row. The lock is held while the object is in use."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    def other_names(self) -> list[Path]:
        """Return the names in `.incoming/` that share this file's inode, which prove that an upload created it."""
        with translate_os_errors(self.path):
            status = os.fstat(self.fd)
            if status.st_nlink < 2:
                return []
            return [path for path in (self.path.parent / INCOMING).iterdir() if is_same_file(path, status)]

    def head(self, length: int) -> bytes:
        """Return the first bytes, at most `length`."""
        with translate_os_errors(self.path):
            return os.pread(self.fd, length, 0)

    def is_named(self, path: Path) -> bool:
        """Return whether `path` is a name of this file."""
        with translate_os_errors(path):
            return is_same_file(path, os.fstat(self.fd))

    def sync(self) -> None:
        """Make the content durable."""
        with translate_os_errors(self.path):
            os.fsync(self.fd)


@contextmanager
def lock_orphan(path: Path, *, wait: float, monotonic: Callable[[], float] = time.monotonic) -> Iterator[Orphan | None]:
    """Lock the file at `path`, waiting up to `wait` seconds, and yield it; None if it does not exist (any more).

    Raises Unavailable if the lock stays taken: its upload is about to commit.
    """
    deadline = monotonic() + wait
    while True:
        fd = _open_if_exists(path)
        if fd is None:
            yield None
            return
        try:
            if not lock_until(fd, deadline, monotonic):
                raise Unavailable(f"Another upload of {path.name} is still being recorded; try again.", retry_after=5)
            if is_same_file(path, os.fstat(fd)):
                yield Orphan(path, fd)
                return
        finally:
            os.close(fd)


def lock_until(fd: int, deadline: float, monotonic: Callable[[], float] = time.monotonic) -> bool:
    """Lock an open file. Return False if others hold the lock until `deadline`, a time of `monotonic`."""
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= deadline:
                return False
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return True


def _open_if_exists(path: Path) -> int | None:
    try:
        return open_regular(path)
    except StorageFailed as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
