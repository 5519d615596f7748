"""A file on its way in: written under a name of its own in `.incoming/` beside its destination, locked with flock all
the while, synced, and published by `link()`, which never overwrites."""

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
    """One file on its way in, open and locked; at the end of the block its temporary name is gone, unless `keep_name`
    was called. `size` is how many bytes were written, `digest` their checksum's state, None where it is not known."""

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
        """Make an empty file for `folder`, a media folder, under an unused name that says what is declared."""
        with translate_os_errors(folder):
            return cls(*_create_locked(folder / INCOMING, declared_bytes, resumable=resumable), digest=new_checksum())

    @classmethod
    def open_again(cls, path: Path, *, wait: float) -> "Incoming | None":
        """Open a file that is under way, and take its lock, waiting up to `wait` seconds for others; None where they
        keep it. Raises StorageFailed where there is no such file, or where it is gone by then."""
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
        """Of what was written so far, which is read again only where its state is not known."""
        if self.digest is None:
            with translate_os_errors(self.path):
                return checksum_of_file(self.fd)
        return self.digest.hexdigest()

    def write(self, chunk: bytes | memoryview) -> None:
        """Append; raises StorageFull or StorageFailed where the disk refuses."""
        rest = memoryview(chunk)
        with translate_os_errors(self.path):
            while rest:
                written = os.write(self.fd, rest)
                if self.digest is not None:
                    self.digest.update(rest[:written])  # while the processor's cache still holds them
                self.size += written
                rest = rest[written:]
        self._writeback.grown_to(self.size)

    def append_file(self, other: "Incoming") -> None:
        """Append the whole of another file. The kernel copies: where the file system can share blocks, nothing is."""
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
        """The first bytes written, at most `length`."""
        with translate_os_errors(self.path):
            return os.pread(self.fd, length, 0)

    def go_on_from(self, size: int, digest: xxh3_128 | None) -> None:
        """Forget what was written beyond `size`, whose checksum's state is `digest` where that is known."""
        with translate_os_errors(self.path):
            os.ftruncate(self.fd, size)
            os.lseek(self.fd, size, os.SEEK_SET)
        self.size, self.digest = size, digest if size else new_checksum()
        self._writeback = Writeback(self.fd, size)

    def promise(self, declared_bytes: int) -> Path:
        """Give the file a second temporary name, durable, that says what is declared; returns it."""
        path = self.path.parent / incoming_name(declared_bytes, resumable=True)
        with translate_os_errors(path):
            os.link(self.path, path)
        sync_folder(path.parent)
        return path

    def sync(self) -> None:
        """Make the content durable. A failure is final: a second fsync might claim what the first one lost."""
        with translate_os_errors(self.path):
            os.fsync(self.fd)

    def publish(self, final: Path) -> bool:
        """Give the file its final name; false if a file of that name is there already."""
        with translate_os_errors(final):
            try:
                os.link(self.path, final)
            except FileExistsError:
                return False
        return True

    def withdraw(self, final: Path) -> None:
        """Take back the final name that `publish` gave. The temporary name outlives it, as its proof."""
        kept, self._keeps_name = self._keeps_name, True
        remove_if_same(final, self.fd)
        self._keeps_name = kept

    def keep_name(self, *, keep: bool = True) -> None:
        """Leave the temporary name in place: as the proof by which a sweep may decide what the file is, or because the
        upload goes on later."""
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
            # What became of the upload is decided already; a sweep removes the name.
            log.warning("temporary_name_left", name=self.path.name, reason=error.strerror)
        finally:
            os.close(self.fd)


def _copy(source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
    try:
        return os.copy_file_range(source, target, count, source_offset, target_offset)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        piece = os.pread(source, min(count, _COPY_BYTES), source_offset)
        return os.pwrite(target, piece, target_offset)


def _create_locked(folder: Path, declared_bytes: int, *, resumable: bool) -> tuple[Path, int]:
    while True:
        path = folder / incoming_name(declared_bytes, resumable=resumable)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if is_same_file(path, os.fstat(fd)):
            return path, fd
        os.close(fd)  # a sweep took it for a leftover between the two calls
