"""Files and folders by their names: opened without following links, compared byte by byte, synced, removed."""

import errno
import os
import stat
from pathlib import Path

from app.errors import StorageFailed
from app.private_files import make_private
from app.storage.os_errors import translate_os_errors

INCOMING = ".incoming"
"""The folder, beside published files, for files on their way in."""

COMPARE_BYTES = 1 << 20


def make_folder(folder: Path) -> None:
    """Make a media folder where it is missing; raises StorageFailed where that cannot be done.

    Nobody but its owner may enter the folder for files on their way in.
    """
    with translate_os_errors(folder):
        (folder / INCOMING).mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(folder / INCOMING)


def is_taken(path: Path) -> bool:
    """Is there anything of that name?"""
    return os.path.lexists(path)


def open_stored(path: Path, size: int) -> int:
    """Open a published file to read it, as its row knows it; the descriptor is the caller's to close.

    Neither follows a link nor waits, whatever somebody has put in its place. Raises StorageFailed where that is no
    regular file of `size` bytes, or where it cannot be opened.
    """
    fd = open_regular(path)
    found = os.fstat(fd).st_size
    if found != size:
        os.close(fd)
        raise StorageFailed(f"The stored file {path.name} has {found} bytes; its record says {size}.")
    return fd


def open_regular(path: Path, access: int = os.O_RDONLY) -> int:
    """Open a file in one of our folders, to read it unless `access` says otherwise, without following a link and
    without waiting.

    Raises StorageFailed where it is no regular file or cannot be opened; `__cause__` is the system's word for it.
    """
    try:
        fd = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        reason = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise StorageFailed(f"The stored file {path.name} {reason}.") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StorageFailed(f"The stored file {path.name} is no regular file.")
    return fd


def same_content(fd: int, other: int) -> bool:
    """Compare two open files byte by byte, from start to end, and leave their positions alone. Raises OSError."""
    size = os.fstat(fd).st_size
    if size != os.fstat(other).st_size:
        return False
    ours, theirs = bytearray(COMPARE_BYTES), bytearray(COMPARE_BYTES)
    offset = 0
    while offset < size:
        count = os.preadv(fd, [ours], offset)
        wanted = memoryview(theirs)[:count]
        if count == 0 or os.preadv(other, [wanted], offset) != count or memoryview(ours)[:count] != wanted:
            return False
        offset += count
    return True


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable."""
    with translate_os_errors(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def remove_if_same(path: Path, fd: int) -> None:
    """Remove a name, but only if it is one of the open file's."""
    with translate_os_errors(path):
        if is_same_file(path, os.fstat(fd)):
            path.unlink(missing_ok=True)


def is_same_file(path: Path, mine: os.stat_result) -> bool:
    """Is `path` a name of the file that was looked at?"""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
