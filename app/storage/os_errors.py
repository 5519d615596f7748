"""OSError translated into what the caller can act on: StorageFull or StorageFailed."""

import errno
from pathlib import Path
from types import TracebackType

from app.errors import StorageFailed, StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT)


class translate_os_errors:  # noqa: N801 (a context, as contextmanager would make one of a function, at a third of the cost)
    """Translate an OSError of the block, which is about the file or folder `path`, into StorageFull or StorageFailed.

    The error translated is the `__cause__`.
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
        raise StorageFailed(f"The disk refused {self._path.name}: {error.strerror}.") from error
