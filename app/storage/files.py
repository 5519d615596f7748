"""File operations: opening without following links, byte-by-byte comparison, syncing, removal."""

import errno
import os
import stat
from pathlib import Path

from app.errors import StorageFailed
from app.process.private_files import make_private
from app.storage.os_errors import translate_os_errors

INCOMING = ".incoming"
"""The folder beside the published files for uploads under way."""

COMPARE_BYTES = 1 << 20


def make_folder(folder: Path) -> None:
    """Create a media folder if it is missing. Raises StorageFailed.

    Only the owner may enter its `.incoming/`.
    """
    with translate_os_errors(folder):
        (folder / INCOMING).mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(folder / INCOMING)


def name_exists(path: Path) -> bool:
    """Return whether anything exists under that name, including a dangling link."""
    return os.path.lexists(path)


def open_stored(path: Path, size: int) -> int:
    """Open a published file of `size` bytes for reading. The caller closes the descriptor.

    It neither follows a link nor blocks. Raises StorageFailed if it is not a regular file of that size or cannot be
    opened.
    """
    fd = open_regular(path)
    found = os.fstat(fd).st_size
    if found != size:
        os.close(fd)
        raise StorageFailed(f"The stored file {path.name} has {found} bytes; its record says {size}.")
    return fd


def open_regular(path: Path, access: int = os.O_RDONLY) -> int:
    """Open a regular file, for reading unless `access` says otherwise, without following links or blocking.

    Raises StorageFailed if it is not a regular file or cannot be opened; `__cause__` is the OSError, if any.
    """
    try:
        fd = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        reason = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise StorageFailed(f"The stored file {path.name} {reason}.") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StorageFailed(f"The stored file {path.name} is not a regular file.")
    return fd


def same_content(fd: int, other: int) -> bool:
    """Compare two open files byte by byte without moving their positions. Raises OSError."""
    size = os.fstat(fd).st_size
    if size != os.fstat(other).st_size:
        return False
    buffer, other_buffer = bytearray(COMPARE_BYTES), bytearray(COMPARE_BYTES)
    offset = 0
    while offset < size:
        count = os.preadv(fd, [buffer], offset)
        expected = memoryview(other_buffer)[:count]
        if count == 0 or os.preadv(other, [expected], offset) != count or memoryview(buffer)[:count] != expected:
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
    """Remove the name if it refers to the open file."""
    with translate_os_errors(path):
        if is_same_file(path, os.fstat(fd)):
            path.unlink(missing_ok=True)


def is_same_file(path: Path, status: os.stat_result) -> bool:
    """Return whether `path` is a name of the file with that status."""
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)
