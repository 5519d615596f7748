"""The room on a disk: free bytes, less what uploads under way have declared and not yet written.

What an upload has declared is part of the name of its file in `.incoming/`; what it has written is that file's size. So
every process that shares the folder, on any host, knows of an upload for exactly as long as its file is there.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

LARGE_BYTES = 16 << 20
"""Uploads that declare as much are counted exactly; to smaller ones the promises of a second ago are good enough."""

KNOWN_SECONDS = 1.0
ADMISSION_SECONDS = 1.0
"""How long an upload waits to be admitted behind others. A process that was stopped meanwhile must not stop everybody;
two that are admitted at once are at worst one too many for the disk, which then says so."""

_POLL_SECONDS = 0.005
_SUFFIX = ".part"
_RESUMABLE = ".upload"


def incoming_name(declared_bytes: int, *, resumable: bool = False) -> str:
    """Return an unused name for a file on its way in; 0 where no size was declared.

    What a `resumable` one promises counts while nobody writes it, too.
    """
    promise = f"-{declared_bytes}" if declared_bytes else ""
    return f"{secrets.token_hex(16)}{promise}{_RESUMABLE if resumable else _SUFFIX}"


class Room:
    """The room in some folders, given as the `.incoming/` of each. Safe to use from several threads."""

    def __init__(self, incoming: Sequence[Path], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._incoming = sorted(set(incoming))
        self._monotonic = monotonic
        self._known: dict[int, tuple[float, int]] = {}

    def left(self, folder: Path, enough: int = 0) -> int:
        """Return the bytes left for an upload into that folder, in which its `.incoming/` is.

        Where they seem fewer than `enough`, uploads whose process is dead are not counted. Raises OSError.
        """
        disk, free = _disk_of(folder)
        left = free - self._promised(disk)
        return left if left >= enough else free - self._promised(disk, only_living=True)

    def has(self, folder: Path, declared_bytes: int) -> bool:
        """Tell whether there is room for an upload that declares so many bytes. Raises OSError."""
        if declared_bytes < LARGE_BYTES:
            disk, free = _disk_of(folder)
            if free - self._promised_lately(disk) >= declared_bytes:
                return True
        return self.left(folder, enough=declared_bytes) >= declared_bytes

    @contextmanager
    def admission(self, folder: Path, declared_bytes: int) -> Iterator[None]:
        """Let nobody else, in any process, be admitted to this disk between the question for room and the file.

        Small uploads are not kept in order. Raises OSError.
        """
        if declared_bytes < LARGE_BYTES:
            yield
            return
        with ExitStack() as locks:
            deadline = self._monotonic() + ADMISSION_SECONDS
            for incoming in self._on_disk(folder.stat().st_dev):
                fd = os.open(incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                locks.callback(os.close, fd)
                while not _locks(fd, fcntl.LOCK_EX) and self._monotonic() < deadline:
                    time.sleep(_POLL_SECONDS)
            yield

    def _promised_lately(self, disk: int) -> int:
        counted, promised = self._known.get(disk, (float("-inf"), 0))
        return promised if self._monotonic() - counted < KNOWN_SECONDS else self._promised(disk)

    def _promised(self, disk: int, *, only_living: bool = False) -> int:
        promised = 0
        for incoming in self._on_disk(disk):
            with os.scandir(incoming) as entries:
                for entry in entries:
                    promise = _still_to_come(entry)
                    if promise and (not only_living or _is_alive(entry)):
                        promised += promise
        self._known[disk] = (self._monotonic(), promised)
        return promised

    def _on_disk(self, disk: int) -> list[Path]:
        return [incoming for incoming in self._incoming if _is_on(incoming, disk)]


def _disk_of(folder: Path) -> tuple[int, int]:
    stat = os.statvfs(folder)
    return folder.stat().st_dev, stat.f_bavail * stat.f_frsize


def _is_on(folder: Path, disk: int) -> bool:
    try:
        return folder.stat().st_dev == disk
    except FileNotFoundError:
        return False


def _still_to_come(entry: "os.DirEntry[str]") -> int:
    _token, _, declared = entry.name.removesuffix(_SUFFIX).removesuffix(_RESUMABLE).partition("-")
    if not (declared.isascii() and declared.isdecimal()):
        return 0
    try:
        return max(0, int(declared) - entry.stat(follow_symlinks=False).st_size)
    except FileNotFoundError:  # it has ended between the two calls
        return 0


def _is_alive(entry: "os.DirEntry[str]") -> bool:
    return entry.name.endswith(_RESUMABLE) or _is_being_written(entry.path)


def _is_being_written(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _locks(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _locks(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
