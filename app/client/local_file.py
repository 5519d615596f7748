"""A local file to upload: checked as the service would, identified, and read in chunks."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.errors import DetectionsError
from app.media.checksum import checksum_of_file
from app.media.hashing import media_id_of_file
from app.media.types import HEAD_BYTES, MEDIA_TYPES, check_first_bytes, extension_of

OnBytes = Callable[[int], None]
"""Called with the number of bytes read for sending, counted from the file's start."""


class UnusableFile(DetectionsError):
    """The file cannot be uploaded, regardless of the network."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """An open file with its id. `size` is in bytes; `modified_ns` is its modification time in ns since 1970."""

    name: str
    content_type: str
    media_id: str
    size: int
    modified_ns: int
    _fd: int

    def checksum(self) -> str:
        """Return the checksum that the service keeps of the file; reads the whole file. Raises UnusableFile."""
        try:
            return checksum_of_file(self._fd)
        except OSError as error:
            raise UnusableFile(f"cannot be read: {error.strerror}") from error

    def body(self, on_bytes: OnBytes, offset: int = 0, size: int | None = None) -> "FileBody":
        """Return a request body with its bytes from `offset` on: `size` of them, or all."""
        return FileBody(self._fd, offset, self.size if size is None else offset + size, on_bytes)

    def check_unchanged(self) -> None:
        """Raise UnusableFile if the file has changed since it was opened, because parts of two versions are no file."""
        status = os.fstat(self._fd)
        if (status.st_size, status.st_mtime_ns) != (self.size, self.modified_ns):
            raise UnusableFile("changed while it was sent")


class FileBody:
    """A request body of known length for requests; the file is never completely in memory."""

    def __init__(self, fd: int, start: int, end: int, on_bytes: OnBytes) -> None:
        self._fd = fd
        self._size = end - start
        self._end = end
        self._on_bytes = on_bytes
        self._position = start

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(1 << 16):
            yield chunk

    def read(self, size: int) -> bytes:
        """Return the next bytes within the announced length. Raises UnusableFile."""
        count = min(size, self._end - self._position)
        try:
            chunk = os.pread(self._fd, count, self._position)
        except OSError as error:
            raise UnusableFile(f"cannot be read: {error.strerror}") from error
        if count and not chunk:
            raise UnusableFile(f"was truncated to {self._position} bytes while it was sent")
        self._position += len(chunk)
        self._on_bytes(self._position)
        return chunk


@contextmanager
def open_local_file(path: Path) -> Iterator[LocalFile]:
    """Open, check and identify a file. Raises UnusableFile, or UnsupportedMedia if the service would refuse it."""
    extension = extension_of(path.name)
    try:
        # O_NONBLOCK, because opening a named pipe would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UnusableFile(f"cannot be opened: {error.strerror}") from error
    try:
        yield _identify(fd, path.name, extension)
    finally:
        os.close(fd)


def _identify(fd: int, name: str, extension: str) -> LocalFile:
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableFile("is not a regular file")
        if not status.st_size:
            raise UnusableFile("is empty")
        check_first_bytes(extension, os.pread(fd, HEAD_BYTES, 0))
        content_type = MEDIA_TYPES[extension].content_type
        return LocalFile(name, content_type, media_id_of_file(fd), status.st_size, status.st_mtime_ns, fd)
    except (OSError, EOFError) as error:
        raise UnusableFile(f"cannot be read: {error}") from error
