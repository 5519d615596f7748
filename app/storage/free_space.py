"""Free disk space, less what uploads under way have declared and not yet written.

An upload's declared size is part of its file's name in `.incoming/`, and the file's size is what it has written. Every
process that shares the folder, on any host, therefore counts an upload for exactly as long as its file exists.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

LARGE_BYTES = 16 << 20
"""Uploads that declare at least this much are counted exactly; smaller ones use a count up to a second old."""

COUNT_SECONDS = 1.0
ADMISSION_SECONDS = 1.0
"""How long an upload waits for the admission of others.

A stopped process must not stop all uploads; two uploads admitted at once may at worst fill the disk, which then fails.
"""

_POLL_SECONDS = 0.005
_SUFFIX = ".part"
_RESUMABLE = ".upload"


def incoming_name(declared_bytes: int, *, resumable: bool = False) -> str:
    """Return an unused name for a file in `.incoming/`; `declared_bytes` is 0 if no size was declared.

    The declared size of a `resumable` upload also counts while nobody writes to it.
    """
    declared = f"-{declared_bytes}" if declared_bytes else ""
    return f"{secrets.token_hex(16)}{declared}{_RESUMABLE if resumable else _SUFFIX}"


class FreeSpace:
    """The free space of folders, each given by its `.incoming/`. Thread-safe."""

    def __init__(self, incoming: Sequence[Path], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._incoming = sorted(set(incoming))
        self._monotonic = monotonic
        self._counts: dict[int, tuple[float, int]] = {}

    def available(self, folder: Path, enough: int = 0) -> int:
        """Return the bytes available to an upload into `folder`, which contains its `.incoming/`.

        If that is less than `enough`, uploads whose process died are not counted. Raises OSError.
        """
        disk, free = _disk_of(folder)
        available = free - self._reserved(disk)
        return available if available >= enough else free - self._reserved(disk, only_living=True)

    def has(self, folder: Path, declared_bytes: int) -> bool:
        """Return whether there is space for an upload that declares that many bytes. Raises OSError."""
        if declared_bytes < LARGE_BYTES:
            disk, free = _disk_of(folder)
            if free - self._recently_reserved(disk) >= declared_bytes:
                return True
        return self.available(folder, enough=declared_bytes) >= declared_bytes

    @contextmanager
    def admission(self, folder: Path, declared_bytes: int) -> Iterator[None]:
        """Admit one large upload at a time to a disk, from the check of its space until its file exists.

        Holds across processes. Small uploads do not wait. Raises OSError.
        """
        if declared_bytes < LARGE_BYTES:
            yield
            return
        with ExitStack() as locks:
            deadline = self._monotonic() + ADMISSION_SECONDS
            for incoming in self._on_disk(folder.stat().st_dev):
                fd = os.open(incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                locks.callback(os.close, fd)
                while not _try_lock(fd, fcntl.LOCK_EX) and self._monotonic() < deadline:
                    time.sleep(_POLL_SECONDS)
            yield

    def _recently_reserved(self, disk: int) -> int:
        counted, reserved = self._counts.get(disk, (float("-inf"), 0))
        return reserved if self._monotonic() - counted < COUNT_SECONDS else self._reserved(disk)

    def _reserved(self, disk: int, *, only_living: bool = False) -> int:
        reserved = 0
        for incoming in self._on_disk(disk):
            with os.scandir(incoming) as entries:
                for entry in entries:
                    declared = _remaining_bytes(entry)
                    if declared and (not only_living or _is_alive(entry)):
                        reserved += declared
        self._counts[disk] = (self._monotonic(), reserved)
        return reserved

    def _on_disk(self, disk: int) -> list[Path]:
        return [incoming for incoming in self._incoming if _is_on_disk(incoming, disk)]


def _disk_of(folder: Path) -> tuple[int, int]:
    stat = os.statvfs(folder)
    return folder.stat().st_dev, stat.f_bavail * stat.f_frsize


def _is_on_disk(folder: Path, disk: int) -> bool:
    try:
        return folder.stat().st_dev == disk
    except FileNotFoundError:
        return False


def _remaining_bytes(entry: "os.DirEntry[str]") -> int:
    _token, _, declared = entry.name.removesuffix(_SUFFIX).removesuffix(_RESUMABLE).partition("-")
    if not (declared.isascii() and declared.isdecimal()):
        return 0
    try:
        return max(0, int(declared) - entry.stat(follow_symlinks=False).st_size)
    except FileNotFoundError:  # the upload ended between the two calls
        return 0


def _is_alive(entry: "os.DirEntry[str]") -> bool:
    return entry.name.endswith(_RESUMABLE) or _is_being_written(entry.path)


def _is_being_written(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _try_lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
