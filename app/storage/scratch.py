"""A file that never has a name: for bytes that are looked at once and kept nowhere."""

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


class Scratch:
    """Open from the start of the block to its end. `size` is the bytes that were written; raises StorageFull or
    StorageFailed where the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self.size = 0
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise _translated(error) from error
        self.fd = self._file.fileno()

    def take_in(self, chunks: Iterable[bytes | memoryview]) -> str:
        """Write all of them, go back to the beginning, and return their checksum."""
        checksum = new_checksum()
        for chunk in chunks:
            checksum.update(chunk)
            try:
                self._write(memoryview(chunk))
            except OSError as error:
                raise _translated(error) from error
        os.lseek(self.fd, 0, os.SEEK_SET)
        return checksum.hexdigest()

    def head(self, length: int) -> bytes:
        """The first bytes, at most `length`; the position is left alone."""
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


def _translated(error: OSError) -> StorageFull | StorageFailed:
    if error.errno in _FULL:
        return StorageFull("The disk is full; the picture could not be taken in.")
    return StorageFailed(f"The disk refused the picture: {error.strerror}.")
