"""A file on its way in: written under a name of its own in `.incoming/` beside its destination, locked with flock all
the while, synced, and published by `link()`, which never overwrites."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from xxhash import xxh3_128

from app.checksum import checksum_of_file, new_checksum
from app.room import incoming_name
from app.storage.files import INCOMING, is_same_file, remove_if_same
from app.storage.os_errors import translate_os_errors
from app.writeback import Writeback

log = structlog.get_logger()


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

    def head(self, length: int) -> bytes:
        """The first bytes written, at most `length`."""
        with translate_os_errors(self.path):
            return os.pread(self.fd, length, 0)

    def truncate(self, size: int) -> None:
        """Forget what was written beyond `size`."""
        with translate_os_errors(self.path):
            os.ftruncate(self.fd, size)
            os.lseek(self.fd, size, os.SEEK_SET)
        if size != self.size:
            self.size, self.digest = size, None if size else new_checksum()
            self._writeback = Writeback(self.fd, size)

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


def _create_locked(folder: Path, declared_bytes: int, *, resumable: bool) -> tuple[Path, int]:
    while True:
        path = folder / incoming_name(declared_bytes, resumable=resumable)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if is_same_file(path, os.fstat(fd)):
            return path, fd
        os.close(fd)  # a sweep took it for a leftover between the two calls
