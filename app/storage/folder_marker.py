"""The marker of a media folder: which database its files belong to, and how far that database has come.

It lies in `.detections`, beside `.incoming`; neither belongs in a copy of the files. It is replaced as a whole under a
lock, so that no reader sees half of it and the highest of several writers wins. Only `place` creates a marker:
`advance` updates an existing one of the same database, and so never writes to a wrong disk. Nothing here knows of the
database.
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
    """How far a database's history has come. The later state compares greater."""

    epoch: int
    counter: int


@dataclass(frozen=True, slots=True)
class Marker:
    """The content of a marker; `instance` is the database's id."""

    instance: str
    reached: Reached


def path_of(folder: Path) -> Path:
    """Return the path of a media folder's marker."""
    return folder / FOLDER / FILE


def read(folder: Path) -> Marker | None:
    """Return the marker of a media folder, or None if there is none. Raises StorageFailed if it cannot be read."""
    path = path_of(folder)
    try:
        with path.open("rb") as file:
            return _parse(file.read(MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageFailed(f"The marker of {folder.name} cannot be read: {error.strerror}.") from error
    except (ValueError, LookupError, TypeError) as error:
        raise StorageFailed(f"The marker of {folder.name} ({FOLDER}/{FILE}) is damaged: {error}.") from error


def read_if_possible(folder: Path) -> Marker | None:
    """Return the marker of a media folder, or None if there is none or it cannot be read."""
    try:
        return read(folder)
    except StorageFailed:
        return None


def place(folder: Path, marker: Marker) -> None:
    """Mark the folder as this database's, whatever marker it had. A marker of the same database is never lowered.

    Raises StorageFailed, or Unavailable if another process keeps the lock.
    """
    try:
        (folder / FOLDER).mkdir(exist_ok=True)
        with _locked(folder):
            current = read_if_possible(folder)
            if current is None or current.instance != marker.instance or current.reached < marker.reached:
                _write(folder, marker)
    except OSError as error:
        raise _write_error(folder, error) from error


def advance(folder: Path, marker: Marker) -> bool:
    """Raise the marker if it is of the same database. Return False if it is not or does not exist.

    Raises StorageFailed, or Unavailable if another process keeps the lock.
    """
    try:
        with _locked(folder):
            current = read(folder)
            if current is None or current.instance != marker.instance:
                return False
            if current.reached < marker.reached:
                _write(folder, marker)
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _write_error(folder, error) from error


def _parse(content: bytes) -> Marker:
    document: dict[str, Any] = json.loads(content)
    return Marker(str(document["instance"]), Reached(int(document["epoch"]), int(document["counter"])))


def _write(folder: Path, marker: Marker) -> None:
    """Replace the marker atomically and durably."""
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
        while not _try_lock(fd):
            if time.monotonic() > deadline:
                raise Unavailable(f"Another process keeps the marker of {folder.name} locked.", retry_after=5)
            time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_error(folder: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"The marker of {folder.name} cannot be written: {error.strerror}.")
