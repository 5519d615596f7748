"""A file being received: written under a temporary name in `.incoming/`, locked with flock, synced, and published.

Publishing is a link() to the final name, which never overwrites.
"""

import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from xxhash import xxh3_128

from app.errors import StorageFailed
from app.media.checksum import checksum_of_file, new_checksum
from app.storage.files import INCOMING, is_same_file, open_regular, remove_if_same, sync_folder
from app.storage.free_space import incoming_name
from app.storage.orphans import lock_until
from app.storage.os_errors import translate_os_errors
from app.storage.writeback import Writeback

log = structlog.get_logger()

_COPY_BYTES = 1 << 20


class Incoming:
    """A locked file being received. At the end of the block its temporary name is removed, unless `keep_name` was
    called.

    `size` is the number of bytes written, `digest` the state of their checksum, None if unknown.
    """

    def __init__(self, path: Path, fd: int, *, size: int = 0, digest: xxh3_128 | None = None) -> None:
        self.path = path
        self.fd = fd
        self.folder = path.parent.parent
        self.size = size
        self.digest = digest
        self._keeps_name = False
        self._writeback = Writeback(fd, size)

    @classmethod
    def create(cls, folder: Path, declared_bytes: int, *, resumable: bool = False) -> "Incoming":
        """Create an empty file for the media folder `folder`, under an unused name with its declared size."""
        with translate_os_errors(folder):
            return cls(*_create_locked(folder / INCOMING, declared_bytes, resumable=resumable), digest=new_checksum())

    @classmethod
    def reopen(cls, path: Path, *, wait: float) -> "Incoming | None":
        """Open and lock an existing file, waiting up to `wait` seconds; None if others keep the lock.

        Raises StorageFailed if the file does not exist (any more).
        """
        fd = open_regular(path, os.O_RDWR)
        if not lock_until(fd, time.monotonic() + wait):
            os.close(fd)
            return None
        status = os.fstat(fd)
        if not is_same_file(path, status):
            os.close(fd)
            raise StorageFailed(f"The file {path.name} is gone.") from FileNotFoundError(errno.ENOENT, "gone")
        os.lseek(fd, 0, os.SEEK_END)
        return cls(path, fd, size=status.st_size)

    @property
    def checksum(self) -> str:
        """The checksum of what was written. The file is read again if the state is unknown."""
        if self.digest is None:
            with translate_os_errors(self.path):
                return checksum_of_file(self.fd)
        return self.digest.hexdigest()

    def write(self, chunk: bytes | memoryview) -> None:
        """Append a chunk. Raises StorageFull or StorageFailed."""
        rest = memoryview(chunk)
        with translate_os_errors(self.path):
            while rest:
                written = os.write(self.fd, rest)
                if self.digest is not None:
                    self.digest.update(rest[:written])  # while the chunk is in the processor's cache
                self.size += written
                rest = rest[written:]
        self._writeback.advance(self.size)

    def append_file(self, other: "Incoming") -> None:
        """Append another file. The kernel copies it, or shares its blocks if the file system can."""
        with translate_os_errors(self.path):
            offset = 0
            while offset < other.size:
                count = _copy(other.fd, self.fd, other.size - offset, offset, self.size)
                if not count:
                    raise StorageFailed(f"The file {other.path.name} ends at {offset} of {other.size} bytes.")
                offset += count
                self.size += count
        self.digest = None
        os.lseek(self.fd, self.size, os.SEEK_SET)

    def head(self, length: int) -> bytes:
        """Return the first bytes written, at most `length`."""
        with translate_os_errors(self.path):
            return os.pread(self.fd, length, 0)

    def truncate(self, size: int, digest: xxh3_128 | None) -> None:
        """Drop what was written beyond `size`; `digest` is the checksum's state at that size, if known."""
        with translate_os_errors(self.path):
            os.ftruncate(self.fd, size)
            os.lseek(self.fd, size, os.SEEK_SET)
        self.size, self.digest = size, digest if size else new_checksum()
        self._writeback = Writeback(self.fd, size)

    def add_declared_name(self, declared_bytes: int) -> Path:
        """Add a second, durable temporary name with the declared size, and return its path."""
        path = self.path.parent / incoming_name(declared_bytes, resumable=True)
        with translate_os_errors(path):
            os.link(self.path, path)
        sync_folder(path.parent)
        return path

    def sync(self) -> None:
        """Make the content durable. A failure is final, because a second fsync may succeed despite lost data."""
        with translate_os_errors(self.path):
            os.fsync(self.fd)

    def publish(self, final: Path) -> bool:
        """Link the file to its final name. Return False if that name exists."""
        with translate_os_errors(final):
            try:
                os.link(self.path, final)
            except FileExistsError:
                return False
        return True

    def unpublish(self, final: Path) -> None:
        """Remove the final name that `publish` gave. The temporary name must outlive it, as proof of its origin."""
        keeps_name, self._keeps_name = self._keeps_name, True
        remove_if_same(final, self.fd)
        self._keeps_name = keeps_name

    def keep_name(self, *, keep: bool = True) -> None:
        """Keep the temporary name at the end: as proof for a sweep, or because the upload continues later."""
        self._keeps_name = keep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        try:
            if not self._keeps_name:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            # The upload's outcome does not depend on it; a sweep removes the name.
            log.warning("temporary_name_left", name=self.path.name, reason=error.strerror)
        finally:
            os.close(self.fd)


def _copy(source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
    try:
        return os.copy_file_range(source, target, count, source_offset, target_offset)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        chunk = os.pread(source, min(count, _COPY_BYTES), source_offset)
        return os.pwrite(target, chunk, target_offset)


def _create_locked(folder: Path, declared_bytes: int, *, resumable: bool) -> tuple[Path, int]:
    while True:
        path = folder / incoming_name(declared_bytes, resumable=resumable)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if is_same_file(path, os.fstat(fd)):
            return path, fd
        os.close(fd)  # a sweep removed it between the two calls
