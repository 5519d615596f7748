"""Writes log lines to standard error, or to the file that it was redirected to, without raising and without blocking.

A line that cannot be written (disk full, broken or full pipe, closed stream) is lost and counted.
"""

import os
import select
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE_SECONDS = 0.2
"""How long a line waits for a full pipe. After a lost line the next ones do not wait, until one is written."""


class LogTarget:
    """This process's standard error. `on_lost` is called for each lost line, `lost` counts them."""

    def __init__(self) -> None:
        self.lost = 0
        self.on_lost: Callable[[], None] = lambda: None
        self._path: Path | None = None
        self._patience = PATIENCE_SECONDS

    def write(self, line: str) -> None:
        """Write a line, or lose it."""
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
        """Remember the file of standard error, if it is one, so that `reopen` can open it after a rename."""
        with suppress(OSError):
            if stat.S_ISREG(os.fstat(2).st_mode):
                self._path = Path(os.readlink("/proc/self/fd/2"))  # noqa: PTH115 (a descriptor's, not a link's target)

    def redirect_to(self, path: Path) -> None:
        """Redirect standard error to the end of a file, created if missing. Raises OSError."""
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        os.dup2(fd, 2)
        os.close(fd)
        self._path = path.absolute()

    def reopen(self) -> None:
        """Open the file anew after log rotation; do nothing if standard error is not a file."""
        if self._path is not None:
            with suppress(OSError):
                self.redirect_to(self._path)

    def _write(self, data: bytes) -> None:
        stream = sys.stderr
        try:
            fd = stream.fileno()
        except (OSError, ValueError, AttributeError):  # a test or a command has replaced the stream
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
"""The log target of this process."""
