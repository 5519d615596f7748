"""Folders in the system's temporary folder that are removed even if their owner was killed.

The owner keeps a lock (flock) on its folder, which ends with the last process that has the descriptor. So whoever
makes the next folder of the kind can tell a dead owner's from a living one's, and removes it.
"""

import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unused(prefix: str) -> Path:
    """Return a path that nothing has, in the temporary folder."""
    return Path(tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(16)}"


def create(path: Path) -> int:
    """Create an empty folder of this user alone and return the descriptor that holds its lock.

    Forks of this process share the lock; programs that it starts do not, unless they are given the descriptor. Raises
    OSError.
    """
    while True:  # between two of these calls a sweep may take it for a dead owner's
        path.mkdir(mode=0o700)
        try:
            fd = os.open(path, _OPEN_FOLDER)
        except FileNotFoundError:
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_at(path, fd):
            return fd
        os.close(fd)


def sweep(prefix: str) -> list[Path]:
    """Remove the folders of that prefix whose owners are dead, and return their paths; only this user's are."""
    return [path for path in Path(tempfile.gettempdir()).glob(f"{prefix}*") if _remove_if_abandoned(path)]


def _remove_if_abandoned(path: Path) -> bool:
    try:
        fd = os.open(path, _OPEN_FOLDER)
    except OSError:  # no folder, gone by now, or somebody else's
        return False
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(path, fd):
            return False
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False
