"""Where a demo keeps its database, files and logs: a temporary folder, or a named one that outlives it.

A folder is locked for as long as a process of the demo lives, so that a second demo neither disturbs a running one nor
is kept out by one that has ended, and removes what killed ones have left in the temporary folder. Only what a demo has
left there is ever removed.
"""

import fcntl
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from app.demo.process import StepFailed
from app.process import temp_folders

_LOCK = "processes"
_TEMPORARY = "detections-demo-"


class DemoFolder:
    """An empty folder for this demo alone. `lock` is the descriptor that its processes must be given, until `leave`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = [lock]

    @classmethod
    def temporary(cls) -> "DemoFolder":
        """A new one under TMPDIR, without those of killed demos. Raises OSError where none can be made."""
        temp_folders.sweep(_TEMPORARY)
        path = temp_folders.unused(_TEMPORARY)
        return cls(path, temp_folders.create(path))

    @classmethod
    def named(cls, path: Path) -> "DemoFolder":
        """This one, made where it is missing, emptied of an earlier demo that has ended.

        Raises StepFailed where it is in use or holds something else, OSError where it cannot be made.
        """
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(path.iterdir()) and not (path / _LOCK).is_file():
            raise StepFailed(f"{path} is not empty, and no earlier demo made it")
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            processes = os.read(lock, 1000).decode()
            os.close(lock)
            raise StepFailed(f"{path} is in use by a demo that is still running; `kill {processes}` ends it") from error
        folder = cls(path, lock)
        folder._clear()
        return folder

    @property
    def settings(self) -> Path:
        """Where `leave` writes the settings."""
        return self.path / "settings"

    def leave(self, settings: Mapping[str, str], processes: Iterable[int]) -> None:
        """Let it be, for the processes that go on: write down the service's settings, for a shell of this user to
        read, and who holds the lock, for whoever wants the folder next."""
        self.settings.touch(mode=0o600)
        self.settings.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()))
        (self.path / _LOCK).write_text(" ".join(map(str, processes)))
        self._unlock()

    def remove(self) -> None:
        """Remove it and everything in it."""
        shutil.rmtree(self.path)
        self._unlock()

    def _unlock(self) -> None:
        while self.lock:
            os.close(self.lock.pop())

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != _LOCK:
                entry.unlink()
        os.truncate(self.path / _LOCK, 0)
