"""Where log lines go: standard error, or the file that it was led to. Writing never raises, and waits for nobody.

A disk that is full, a pipe whose reader has gone or does not read, a stream that was closed: the line is lost, and
counted. Nothing else happens.
"""

import os
import select
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE_SECONDS = 0.2
"""How long a line waits for a pipe that is full. Those after one that was lost do not wait, until one gets through."""


class LogTarget:
    """The standard error of this process. `on_lost` is called for each line that is lost."""

    def __init__(self) -> None:
        self.lost = 0
        self.on_lost: Callable[[], None] = lambda: None
        self._path: Path | None = None
        self._patience = PATIENCE_SECONDS

    def write(self, line: str) -> None:
        """Write one line, or lose it."""
        try:
            self._write(f"{line}\n".encode(errors="backslashreplace"))
        except (OSError, ValueError, AttributeError):
            self.lost += 1
            self._patience = 0.0
            with suppress(Exception):
                self.on_lost()
        else:
            self._patience = PATIENCE_SECONDS

    def note_path(self) -> None:
        """Remember the file that standard error leads to, if it is one: after a renaming it is opened anew."""
        with suppress(OSError):
            if stat.S_ISREG(os.fstat(2).st_mode):
                self._path = Path(os.readlink("/proc/self/fd/2"))  # noqa: PTH115 (a descriptor's, not a link's target)

    def lead_to(self, path: Path) -> None:
        """Have standard error go to the end of that file, which is made where it is missing. Raises OSError."""
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        os.dup2(fd, 2)
        os.close(fd)
        self._path = path.absolute()

    def reopen(self) -> None:
        """Go on in the file of that path, as log rotation wants it; without effect where it is no file."""
        if self._path is not None:
            with suppress(OSError):
                self.lead_to(self._path)

    def _write(self, data: bytes) -> None:
        stream = sys.stderr
        try:
            fd = stream.fileno()
        except (OSError, ValueError, AttributeError):  # put in its place by a test or a command
            stream.write(data.decode())
            stream.flush()
            return
        rest = memoryview(data)
        while rest:
            _, writable, _ = select.select([], [fd], [], self._patience)
            if not writable:
                raise BlockingIOError
            rest = rest[os.write(fd, rest[: select.PIPE_BUF]) :]


TARGET = LogTarget()
"""This process's."""
