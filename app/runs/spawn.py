"""Starting a detector process: with an environment made for it, and no file but its end of a channel.

Nothing is inherited: the variables of the server hold keys and passwords, its files are everybody's media. What the
process writes to its standard error comes back through a pipe that never fills up; the rest of it is dropped.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from app.detection.channel import Channel
from app.errors import DetectorNotReady
from app.process import processors
from app.settings.detector import DetectorOptions, detector_environment

_CHILD = Path(__file__).parents[1] / "detection" / "child.py"
_MOST_SAID = 4096
"""Bytes of its standard error that are passed on at a time."""


class Spawned:
    """A process that was started, this side's end of its channel, and what it writes to its standard error."""

    def __init__(self, options: DetectorOptions) -> None:
        ours, theirs = socket.socketpair()
        said, says = os.pipe()
        for end in (said, says):
            os.set_blocking(end, False)
        self.channel, self._said = Channel(ours), said
        try:
            with processors.unpinned():
                self._process = _start(theirs, says, options)
        except OSError as error:
            self._close()
            raise DetectorNotReady(f"the detector cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(says)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def said(self) -> str:
        """What it has written to its standard error since this was last asked, as text, the end of it if it is long."""
        try:
            text = os.read(self._said, 1 << 16).decode(errors="replace").strip()
        except BlockingIOError:
            return ""
        return text[-_MOST_SAID:]

    def exit_code(self, seconds: float) -> int | None:
        """What it ended with, negative for a signal; None where it has not ended within so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self, seconds: float) -> None:
        """End it, by force if it has not within so many seconds, and wait for that. May be called again."""
        self._process.terminate()
        if self.exit_code(seconds) is None:
            self._process.kill()
            self._process.wait()

    def _close(self) -> None:
        self.channel.close()
        os.close(self._said)

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            self._close()


def _start(channel: socket.socket, errors: int, options: DetectorOptions) -> "subprocess.Popen[bytes]":
    # -I: no variable of Python's is heeded; -S: nothing is run that somebody has put into the environment's folders.
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(_CHILD), str(channel.fileno())]
    return subprocess.Popen(
        command + [str(Path(entry).absolute()) for entry in sys.path],
        env=detector_environment(options),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        pass_fds=[channel.fileno()],
    )
