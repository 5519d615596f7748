"""A file about to be sent: checked as the service would, identified, and read from disk piece by piece."""

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
"""Called with how many bytes of the file have been read for sending, counted from the file's start."""


class FileUnfit(DetectionsError):
    """The file cannot be uploaded, whatever the network does."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """An open file with its id; `size` is in bytes, `modified_ns` the time of its last change, in ns since 1970."""

    name: str
    content_type: str
    media_id: str
    size: int
    modified_ns: int
    _fd: int

    def checksum(self) -> str:
        """The checksum that the service keeps of such a file; reads the whole of it. Raises FileUnfit."""
        try:
            return checksum_of_file(self._fd)
        except OSError as error:
            raise FileUnfit(f"cannot be read: {error.strerror}") from error

    def body(self, on_bytes: OnBytes, offset: int = 0, size: int | None = None) -> "FileBody":
        """Its bytes from `offset` on, `size` of them or all, for one request."""
        return FileBody(self._fd, offset, self.size if size is None else offset + size, on_bytes)

    def check_unchanged(self) -> None:
        """Raise FileUnfit where the file is no longer the one that was opened: parts of two states are no file."""
        status = os.fstat(self._fd)
        if (status.st_size, status.st_mtime_ns) != (self.size, self.modified_ns):
            raise FileUnfit("was changed while it was sent")


class FileBody:
    """What `requests` takes as a body of known length; the file is never in memory as a whole."""

    def __init__(self, fd: int, start: int, end: int, on_bytes: OnBytes) -> None:
        self._fd = fd
        self._size = end - start
        self._end = end
        self._on_bytes = on_bytes
        self._position = start

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(1 << 16):
            yield piece

    def read(self, size: int) -> bytes:
        """The next bytes, none of them past the length that was announced. Raises FileUnfit."""
        wanted = min(size, self._end - self._position)
        try:
            piece = os.pread(self._fd, wanted, self._position)
        except OSError as error:
            raise FileUnfit(f"cannot be read: {error.strerror}") from error
        if wanted and not piece:
            raise FileUnfit(f"was cut to {self._position} bytes while it was sent")
        self._position += len(piece)
        self._on_bytes(self._position)
        return piece


@contextmanager
def opened(path: Path) -> Iterator[LocalFile]:
    """The file, checked and identified; raises FileUnfit, or UnsupportedMedia where the service would not take it."""
    extension = extension_of(path.name)
    try:
        # A pipe of that name would have opening wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise FileUnfit(f"cannot be opened: {error.strerror}") from error
    try:
        yield _identified(fd, path.name, extension)
    finally:
        os.close(fd)


def _identified(fd: int, name: str, extension: str) -> LocalFile:
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileUnfit("is no file with content of its own")
        if not status.st_size:
            raise FileUnfit("is empty")
        check_first_bytes(extension, os.pread(fd, HEAD_BYTES, 0))
        content_type = MEDIA_TYPES[extension].content_type
        return LocalFile(name, content_type, media_id_of_file(fd), status.st_size, status.st_mtime_ns, fd)
    except (OSError, EOFError) as error:
        raise FileUnfit(f"cannot be read: {error}") from error
