"""Translates OSError into StorageFull or StorageFailed."""

import errno
from pathlib import Path
from types import TracebackType

from app.errors import StorageFailed, StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT)


class translate_os_errors:  # noqa: N801 (a class costs a third of a contextmanager)
    """Translate an OSError of the block, about the file or folder `path`, into StorageFull or StorageFailed.

    `__cause__` is the OSError.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in _FULL:
            raise StorageFull(f"The disk is full; {self._path.name} was not stored.") from error
        raise StorageFailed(f"The disk failed for {self._path.name}: {error.strerror}.") from error
