"""Shows an upload's progress on a terminal: bytes, speed, remaining time, and the reason for waiting."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column

from app.cli.output import printable
from app.client.progress import Progress as ClientProgress

BAR_WIDTH = 12
"""In columns: on an 80-column terminal the name and the reason need the space."""


class UploadProgress(ClientProgress, Protocol):
    """Receives the progress of several files."""

    def begin(self, path: Path) -> None: ...


class _NoProgress:
    """No progress, when standard error is piped."""

    def begin(self, path: Path) -> None:
        """Does nothing."""

    def sent(self, count: int) -> None:
        """Does nothing."""

    def resumed(self, offset: int) -> None:
        """Does nothing."""

    def waits(self, reason: str, seconds: float) -> None:
        """Does nothing."""


class _Bar:
    """A progress bar for the current file."""

    def __init__(self, progress: Progress, files: int) -> None:
        self._progress = progress
        self._files = files
        self._number = 0
        self._name = self._title = ""
        self._task = progress.add_task("", total=None)

    def begin(self, path: Path) -> None:
        self._number += 1
        self._name = self._title = f"{self._number}/{self._files} {printable(path.name)}"
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(self._name, total=path.stat().st_size if path.is_file() else None)

    def sent(self, count: int) -> None:
        self._progress.update(self._task, completed=count, description=self._name)

    def resumed(self, offset: int) -> None:
        self._name = f"{self._title} (resumed at {decimal(offset)})"
        # Bytes sent earlier do not count towards the speed.
        self._progress.reset(self._task, completed=offset, description=self._name)

    def waits(self, reason: str, seconds: float) -> None:
        self._progress.update(self._task, description=printable(f"{self._title} (retry in {seconds:.0f} s: {reason})"))


@contextmanager
def show_progress(files: int) -> Iterator[UploadProgress]:
    """Yield a progress bar on a terminal, and no progress when standard error is piped."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _NoProgress()
        return
    name = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(BAR_WIDTH),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # Standard output is printed above the bar only if it is on the terminal too.
    with Progress(
        *columns, console=console, transient=True, expand=True, redirect_stdout=sys.stdout.isatty()
    ) as progress:
        yield _Bar(progress, files)
