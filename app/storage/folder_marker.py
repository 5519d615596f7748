"""The marker of a media folder: which database its files belong to, and how far that database has come.

It lies in a folder of its own, `.detections`, beside `.incoming`: neither belongs into a copy of the files. It is
replaced as a whole under a lock, so that no reader finds half of one and of several writers the highest wins. A marker
is made by `place` alone: `advance` writes to a folder that has the right one, and so never to a disk that happens to be
mounted in its place. Nothing here knows of the database.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from app.errors import StorageFailed, Unavailable

FOLDER, FILE, LOCK, NEW = ".detections", "marker.json", "lock", "marker.new"
LOCK_SECONDS = 5.0
LOCK_POLL_SECONDS = 0.02
MAX_BYTES = 4096


class Reached(NamedTuple):
    """How far a database's history has come: the later one is the greater one."""

    epoch: int
    counter: int


@dataclass(frozen=True, slots=True)
class Marker:
    """`instance` is the id of the database."""

    instance: str
    reached: Reached


def path_of(folder: Path) -> Path:
    """Where a media folder's marker is."""
    return folder / FOLDER / FILE


def read(folder: Path) -> Marker | None:
    """The marker of a media folder; None where there is none. Raises StorageFailed where it cannot be read."""
    path = path_of(folder)
    try:
        with path.open("rb") as file:
            return _parsed(file.read(MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageFailed(f"The marker of {folder.name} cannot be read: {error.strerror}.") from error
    except (ValueError, LookupError, TypeError) as error:
        raise StorageFailed(f"The marker of {folder.name} ({FOLDER}/{FILE}) is damaged: {error}.") from error


def read_if_possible(folder: Path) -> Marker | None:
    """The same; None also where there is one that cannot be read."""
    try:
        return read(folder)
    except StorageFailed:
        return None


def place(folder: Path, marker: Marker) -> None:
    """Make the folder this database's, whatever marker it had; a marker of the same database is never lowered.

    Raises StorageFailed, or Unavailable for a lock that another process keeps.
    """
    try:
        (folder / FOLDER).mkdir(exist_ok=True)
        with _locked(folder):
            there = read_if_possible(folder)
            if there is None or there.instance != marker.instance or there.reached < marker.reached:
                _write(folder, marker)
    except OSError as error:
        raise _failed(folder, error) from error


def advance(folder: Path, marker: Marker) -> bool:
    """Raise what the marker says, if it is of the same database; False where it is not, or is not there.

    Raises as `place` does.
    """
    try:
        with _locked(folder):
            there = read(folder)
            if there is None or there.instance != marker.instance:
                return False
            if there.reached < marker.reached:
                _write(folder, marker)
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _failed(folder, error) from error


def _parsed(content: bytes) -> Marker:
    document: dict[str, Any] = json.loads(content)
    return Marker(str(document["instance"]), Reached(int(document["epoch"]), int(document["counter"])))


def _write(folder: Path, marker: Marker) -> None:
    """The old content or the new one is there after a crash, never an empty file."""
    new = folder / FOLDER / NEW
    document = {"instance": marker.instance, **marker.reached._asdict()}
    with new.open("wb") as file:
        file.write(json.dumps(document).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path_of(folder))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder / FOLDER / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _taken(fd):
            if time.monotonic() > deadline:
                raise Unavailable(f"Another process keeps the marker of {folder.name} locked.", retry_after=5)
            time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _failed(folder: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"The marker of {folder.name} cannot be written: {error.strerror}.")
