"""Durable publishing of files, and the folders they live in. Nothing here knows of the database or of HTTP.

A file is written under a name of its own in `.incoming/` beside its destination, locked with flock all the while,
synced, and published by `link()`, which never overwrites. The lock belongs to the inode, so it guards the final name
too: whoever finds a final file that no row names asks for its lock before judging it. Only names in `.incoming/`, and
final names that share an inode with one, are ever removed.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from app.checksum import new_checksum
from app.errors import StorageFailed, StorageFull, Unavailable
from app.file_systems import is_inability
from app.folder_trials import FolderTrial, Outcome
from app.private_files import make_private
from app.room import Room, incoming_name
from app.scratch import Scratch
from app.writeback import Writeback

log = structlog.get_logger()

INCOMING = ".incoming"
COMPARE_BYTES = 1 << 20
LOCK_LOOK_SECONDS = 0.02
RETRY_SECONDS = 30.0
"""When a client may come again while a folder is missing."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Storage:
    """The folders of this service, one for each media type. Safe to use from several threads.

    `unusable_reason` tells why nothing may be stored in a folder at this moment, None where it may.
    """

    def __init__(
        self, folders: Mapping[str, Path], unusable_reason: Callable[[Path], str | None] = lambda _folder: None
    ) -> None:
        self._folders = dict(folders)
        self.unusable_reason = unusable_reason
        self._room = Room([folder / INCOMING for folder in self._folders.values()])
        self._trials = {folder: FolderTrial(folder, folder / INCOMING) for folder in self._folders.values()}

    def prepare(self) -> None:
        """Make the folders where they are missing; raises StorageFailed where that cannot be done."""
        for folder in self._folders.values():
            make_folder(folder)

    def ensure_fit(self) -> None:
        """Raise StorageFailed, with one line, where a folder's file system cannot do what publishing needs."""
        found = [(folder, trial.outcome(max_age=0).missing) for folder, trial in self._trials.items()]
        unfit = "; ".join(f"the folder {folder} cannot take uploads: {missing}" for folder, missing in found if missing)
        if unfit:
            raise StorageFailed(f"{unfit[0].upper()}{unfit[1:]}.")

    def try_folder(self, folder: Path) -> Outcome:
        """What publishing a file there comes to, tried within the last seconds."""
        return self._trials[folder].outcome()

    @property
    def folders(self) -> list[Path]:
        return list(dict.fromkeys(self._folders.values()))

    def final_path(self, media_type: str, media_id: str, extension: str) -> Path:
        """Where a media of that id belongs."""
        return self._folders[media_type] / f"{media_id}.{extension}"

    def contains(self, path: Path) -> bool:
        """Is that the path of a file directly in one of our folders?"""
        return path.parent in self.folders and not path.is_symlink() and path.is_file()

    def admit(self, declared_bytes: int) -> None:
        """Raise StorageFull where no folder has room for so many bytes more, Unavailable where none may be stored in;
        nothing is reserved."""
        if all(self._refusal(folder) for folder in self.folders):
            raise Unavailable(str(self._refusal(self.folders[0])), RETRY_SECONDS)
        for folder in self.folders:
            with judged(folder):
                if self._room.has(folder, declared_bytes):
                    return
        raise StorageFull(f"There is no room for {declared_bytes} bytes.")

    @contextmanager
    def incoming(self, media_type: str, declared_bytes: int | None) -> Iterator["Incoming"]:
        """A file to write into, counted against the free space while it is under way.

        Its temporary name is gone at the end, unless `keep_name` was called on it. Raises StorageFull, or Unavailable
        where the folder was found to lack what publishing needs.
        """
        folder = self._usable(media_type)
        with judged(folder), self._room.admission(folder, declared_bytes or 0):
            self._ensure_room(media_type, declared_bytes)
            incoming = Incoming(folder, declared_bytes or 0)
        try:
            with incoming:
                yield incoming
        except StorageFailed as error:
            if is_inability(error.__cause__):
                self._trials[folder].outcome(max_age=0)  # the next upload is refused before it comes
            raise

    @contextmanager
    def scratch(self, media_type: str, declared_bytes: int | None) -> Iterator[Scratch]:
        """A file without a name beside that type's files, gone at the end of the block or with this process.

        Raises StorageFull where there is no room for so many bytes, or Unavailable as `incoming` does.
        """
        folder = self._usable(media_type)
        with judged(folder):
            self._ensure_room(media_type, declared_bytes)
        with Scratch(folder / INCOMING) as scratch:
            yield scratch

    def published(self) -> Iterator[Path]:
        """Everything in the folders that is no folder itself, in no order and without keeping a list."""
        for folder in self.folders:
            with judged(folder), os.scandir(folder) as entries:
                yield from (Path(entry.path) for entry in entries if not entry.is_dir(follow_symlinks=False))

    def leftovers(self) -> Iterator[Path]:
        """Every name in `.incoming/` of the folders that may be stored in, whoever left it there."""
        for folder in self.folders:
            if self.unusable_reason(folder):
                continue
            with judged(folder):
                names = sorted((folder / INCOMING).iterdir())
            yield from (name for name in names if name.is_file() and not name.is_symlink())

    def room(self, folder: Path, enough: int = 0) -> int:
        """Free bytes, less what uploads to the same disk, by any process, have declared and not yet written.

        Where they seem fewer than `enough`, uploads whose process is dead are not counted.
        """
        with judged(folder):
            return self._room.left(folder, enough)

    def _usable(self, media_type: str) -> Path:
        folder = self._folders[media_type]
        reason = self._refusal(folder)
        if reason:
            raise Unavailable(reason, RETRY_SECONDS)
        return folder

    def _ensure_room(self, media_type: str, declared_bytes: int | None) -> None:
        if declared_bytes and not self._room.has(self._folders[media_type], declared_bytes):
            raise StorageFull(f"There is no room for {declared_bytes} bytes in the {media_type} folder.")

    def _refusal(self, folder: Path) -> str | None:
        """Why nothing may be stored in the folder now: it is not the one that it was, or cannot publish files."""
        reason = self.unusable_reason(folder)
        if reason:
            return reason
        missing = self._trials[folder].missing()
        return f"The folder {folder.name} cannot take uploads: {missing}." if missing else None


class Incoming:
    """One file on its way in: created under an unused name, locked, and never seen elsewhere before `publish`."""

    def __init__(self, folder: Path, declared_bytes: int) -> None:
        self.folder = folder
        self.size = 0
        self._checksum = new_checksum()
        self._keeps_name = False
        with judged(folder):
            self.path, self.fd = _create_locked(folder / INCOMING, declared_bytes)
        self._writeback = Writeback(self.fd)

    @property
    def checksum(self) -> str:
        """Of what was written so far."""
        return self._checksum.hexdigest()

    def write(self, chunk: bytes | memoryview) -> None:
        """Append; raises StorageFull or StorageFailed where the disk refuses."""
        rest = memoryview(chunk)
        with judged(self.path):
            while rest:
                written = os.write(self.fd, rest)
                self._checksum.update(rest[:written])  # while the processor's cache still holds them
                self.size += written
                rest = rest[written:]
        self._writeback.grown_to(self.size)

    def head(self, length: int) -> bytes:
        """The first bytes written, at most `length`."""
        with judged(self.path):
            return os.pread(self.fd, length, 0)

    def sync(self) -> None:
        """Make the content durable. A failure is final: a second fsync might claim what the first one lost."""
        with judged(self.path):
            os.fsync(self.fd)

    def publish(self, final: Path) -> bool:
        """Give the file its final name; false if a file of that name is there already."""
        with judged(final):
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

    def keep_name(self) -> None:
        """Leave the temporary name in place, as the proof by which a sweep may judge the file later."""
        self._keeps_name = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        try:
            if not self._keeps_name:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            # What became of the upload is settled already; a sweep removes the name.
            log.warning("temporary_name_left", name=self.path.name, reason=error.strerror)
        finally:
            os.close(self.fd)


class FoundFile:
    """A file met under a name that no row is known for, held by its lock while it is judged."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    def other_names(self) -> list[Path]:
        """The names in `.incoming/` that share this file's inode: proof that an upload of ours made it."""
        with judged(self.path):
            mine = os.fstat(self.fd)
            if mine.st_nlink < 2:
                return []
            return [path for path in (self.path.parent / INCOMING).iterdir() if _is_same(path, mine)]

    def head(self, length: int) -> bytes:
        """The first bytes, at most `length`."""
        with judged(self.path):
            return os.pread(self.fd, length, 0)

    def is_named(self, path: Path) -> bool:
        """Is `path` another name of this very file?"""
        with judged(path):
            return _is_same(path, os.fstat(self.fd))

    def sync(self) -> None:
        """Make the content durable, whoever wrote it."""
        with judged(self.path):
            os.fsync(self.fd)


@contextmanager
def hold(path: Path, *, wait: float, monotonic: Callable[[], float] = time.monotonic) -> Iterator[FoundFile | None]:
    """Take the lock of the file at `path`, waiting up to `wait` seconds; None where there is no such file (any more).

    Raises Unavailable where the lock stays taken: that upload is about to commit.
    """
    deadline = monotonic() + wait
    while True:
        fd = _open_if_there(path)
        if fd is None:
            yield None
            return
        try:
            if not _lock_until(fd, deadline, monotonic):
                raise Unavailable(f"Another upload of {path.name} is still being recorded; try again.", retry_after=5)
            if _is_same(path, os.fstat(fd)):
                yield FoundFile(path, fd)
                return
        finally:
            os.close(fd)


def make_folder(folder: Path) -> None:
    """Make a media folder where it is missing; raises StorageFailed where that cannot be done.

    Nobody but its owner may enter the folder for files on their way in.
    """
    with judged(folder):
        (folder / INCOMING).mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(folder / INCOMING)


def is_taken(path: Path) -> bool:
    """Is there anything of that name?"""
    return os.path.lexists(path)


def open_stored(path: Path, size: int) -> int:
    """Open a published file to read it, as its row knows it; the descriptor is the caller's to close.

    Neither follows a link nor waits, whatever somebody has put in its place. Raises StorageFailed where that is no
    regular file of `size` bytes, or where it cannot be opened.
    """
    fd = open_regular(path)
    found = os.fstat(fd).st_size
    if found != size:
        os.close(fd)
        raise StorageFailed(f"The stored file {path.name} has {found} bytes; its record says {size}.")
    return fd


def open_regular(path: Path) -> int:
    """Open a file in one of our folders to read it, without following a link and without waiting.

    Raises StorageFailed where it is no regular file or cannot be opened; `__cause__` is the system's word for it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        reason = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise StorageFailed(f"The stored file {path.name} {reason}.") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StorageFailed(f"The stored file {path.name} is no regular file.")
    return fd


def same_content(fd: int, other: int) -> bool:
    """Byte by byte, from start to end; the positions of both files are left alone. Raises OSError."""
    size = os.fstat(fd).st_size
    if size != os.fstat(other).st_size:
        return False
    ours, theirs = bytearray(COMPARE_BYTES), bytearray(COMPARE_BYTES)
    offset = 0
    while offset < size:
        count = os.preadv(fd, [ours], offset)
        wanted = memoryview(theirs)[:count]
        if count == 0 or os.preadv(other, [wanted], offset) != count or memoryview(ours)[:count] != wanted:
            return False
        offset += count
    return True


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable."""
    with judged(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def remove_if_same(path: Path, fd: int) -> None:
    """Remove a name, but only if it is one of the open file's."""
    with judged(path):
        if _is_same(path, os.fstat(fd)):
            path.unlink(missing_ok=True)


class judged:  # noqa: N801 (a context, as contextmanager would make one of a function, at a third of the cost)
    """Say what the operating system's refusal means for the caller."""

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


def _create_locked(folder: Path, declared_bytes: int) -> tuple[Path, int]:
    while True:
        path = folder / incoming_name(declared_bytes)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_same(path, os.fstat(fd)):
            return path, fd
        os.close(fd)  # a sweep took it for a leftover between the two calls


def _open_if_there(path: Path) -> int | None:
    try:
        return open_regular(path)
    except StorageFailed as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _lock_until(fd: int, deadline: float, monotonic: Callable[[], float]) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= deadline:
                return False
            time.sleep(LOCK_LOOK_SECONDS)
        else:
            return True


def _is_same(path: Path, mine: os.stat_result) -> bool:
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
