"""Starts detector processes with an environment of their own and no open file but their end of a channel.

They inherit nothing, because the server's environment has keys and passwords, and its open files are other users'
media. Their standard error goes to a non-blocking pipe; what does not fit is dropped.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from app.detection.protocol.channel import Channel
from app.errors import DetectorNotReady
from app.process import processors
from app.settings.detector import DetectorOptions, detector_environment

_CHILD = Path(__file__).parents[1] / "detection" / "child.py"
_MAX_STDERR_BYTES = 4096
"""Bytes of standard error that are read at a time."""


class SpawnedProcess:
    """A started process with this side's end of its channel and of its standard error."""

    def __init__(self, options: DetectorOptions) -> None:
        ours, theirs = socket.socketpair()
        stderr, theirs_stderr = os.pipe()
        for end in (stderr, theirs_stderr):
            os.set_blocking(end, False)
        self.channel, self._stderr = Channel(ours), stderr
        try:
            with processors.unpinned():
                self._process = _start(theirs, theirs_stderr, options)
        except OSError as error:
            self._close()
            raise DetectorNotReady(f"the detector cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(theirs_stderr)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def read_stderr(self) -> str:
        """Return the last text written to standard error since the previous call, at most _MAX_STDERR_BYTES of it."""
        try:
            text = os.read(self._stderr, 1 << 16).decode(errors="replace").strip()
        except BlockingIOError:
            return ""
        return text[-_MAX_STDERR_BYTES:]

    def exit_code(self, seconds: float) -> int | None:
        """Return the exit status, negative for a signal; None if the process has not ended within `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self, seconds: float) -> None:
        """Terminate the process, kill it after `seconds`, and wait for its end. May be called again."""
        self._process.terminate()
        if self.exit_code(seconds) is None:
            self._process.kill()
            self._process.wait()

    def _close(self) -> None:
        self.channel.close()
        os.close(self._stderr)

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            self._close()


def _start(channel: socket.socket, errors: int, options: DetectorOptions) -> "subprocess.Popen[bytes]":
    # -I ignores Python's environment variables; -S runs no .pth file or sitecustomize of the environment.
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
