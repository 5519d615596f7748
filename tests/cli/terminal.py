"""Runs `flask …` as a process with its output piped or on a terminal of a given width."""

import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests import fork_server
from tests.paths import ROOT
from tests.system.service import surroundings

COMMAND = (sys.executable, "-m", "flask")


def piped(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it with no other settings than `environment`."""
    return fork_server.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=surroundings() | dict(environment or {}),
        timeout=90,
    )


def on_terminal(
    *arguments: str, columns: int = 80, environment: Mapping[str, str] | None = None, output: Path | None = None
) -> tuple[int, str]:
    """Run it with standard error and, unless a file is given, standard output on one terminal.

    Return its exit code and everything it wrote there.
    """
    ours, theirs = pty.openpty()
    with (output or Path(os.devnull)).open("wb") as file:
        process = fork_server.Popen(
            [*COMMAND, *arguments],
            cwd=ROOT,
            env=surroundings() | dict(environment or {}) | {"COLUMNS": str(columns), "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=file if output else theirs,
            stderr=theirs,
        )
    os.close(theirs)
    written = b""
    try:
        while piece := _read(ours):
            written += piece
        return process.wait(60), written.decode()
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # on Linux after the other end was closed
        return b""
