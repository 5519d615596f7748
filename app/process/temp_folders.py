"""Temporary folders that are removed even if their owner was killed.

The owner holds a lock (flock) on its folder, which ends with the last process that has the descriptor. The next sweep
removes folders that are not locked.
"""

import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unused(prefix: str) -> Path:
    """Return an unused path in the temporary folder."""
    return Path(tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(16)}"


def create(path: Path) -> int:
    """Create a folder accessible to this user only, and return the descriptor that holds its lock.

    Forks of this process share the lock; programs that it starts do not, unless they inherit the descriptor. Raises
    OSError.
    """
    while True:  # a sweep may remove the folder before it is locked
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
    """Remove this user's folders with the prefix whose owners are dead; return their paths."""
    return [path for path in Path(tempfile.gettempdir()).glob(f"{prefix}*") if _remove_if_abandoned(path)]


def _remove_if_abandoned(path: Path) -> bool:
    try:
        fd = os.open(path, _OPEN_FOLDER)
    except OSError:  # not a folder, removed meanwhile, or another user's
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
