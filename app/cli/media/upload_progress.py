"""How uploads under way are shown on a terminal: bytes, speed, time left, and what is being waited for."""

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
"""In columns: at 80 of them the name, and why it waits, are worth more than a long bar."""


class UploadProgress(ClientProgress, Protocol):
    """What uploads tell: the file begun, and how it goes on."""

    def begin(self, path: Path) -> None: ...


class _Nothing:
    """Where standard error is piped there is no progress to be seen."""

    def begin(self, path: Path) -> None:
        """Nothing."""

    def sent(self, count: int) -> None:
        """Nothing."""

    def resumed(self, offset: int) -> None:
        """Nothing."""

    def waits(self, why: str, seconds: float) -> None:
        """Nothing."""


class _Bar:
    """The file under way: bytes, speed, time left; and why it waits, while it does."""

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
        # What was there before is no part of the speed.
        self._progress.reset(self._task, completed=offset, description=self._name)

    def waits(self, why: str, seconds: float) -> None:
        self._progress.update(self._task, description=printable(f"{self._title} (again in {seconds:.0f} s: {why})"))


@contextmanager
def shown_progress(files: int) -> Iterator[UploadProgress]:
    """A bar on a terminal, and nothing where standard error is piped."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Nothing()
        return
    name = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(BAR_WIDTH),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # Lines on standard output go above the bar only where both are on the terminal; into a file otherwise.
    with Progress(
        *columns, console=console, transient=True, expand=True, redirect_stdout=sys.stdout.isatty()
    ) as progress:
        yield _Bar(progress, files)
