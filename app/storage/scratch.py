"""An unnamed temporary file, for content that is processed once and not stored."""

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from app.errors import StorageFailed, StorageFull
from app.media.checksum import new_checksum

_FULL = (errno.ENOSPC, errno.EDQUOT)


class ScratchFile:
    """Open from construction to the end of the block. `size` is the number of bytes written.

    Raises StorageFull or StorageFailed.
    """

    def __init__(self, folder: Path) -> None:
        self.size = 0
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise _translate(error) from error
        self.fd = self._file.fileno()

    def write_all(self, chunks: Iterable[bytes | memoryview]) -> str:
        """Write all chunks, return to the beginning, and return their checksum."""
        checksum = new_checksum()
        for chunk in chunks:
            checksum.update(chunk)
            try:
                self._write(memoryview(chunk))
            except OSError as error:
                raise _translate(error) from error
        os.lseek(self.fd, 0, os.SEEK_SET)
        return checksum.hexdigest()

    def head(self, length: int) -> bytes:
        """Return the first bytes, at most `length`, without moving the position."""
        return os.pread(self.fd, length, 0)

    def _write(self, rest: memoryview) -> None:
        while rest:
            written = os.write(self.fd, rest)
            self.size += written
            rest = rest[written:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._file.close()


def _translate(error: OSError) -> StorageFull | StorageFailed:
    if error.errno in _FULL:
        return StorageFull("The disk is full; the picture was not received.")
    return StorageFailed(f"The disk failed for the picture: {error.strerror}.")
