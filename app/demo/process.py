"""A process of the demo with everything that it starts in turn: ended as a whole, and readable by its log."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
POLL_SECONDS = 0.02

_TAIL_BYTES = 16 * 1024


class Process:
    """Running from its making on, in a session of its own: a Ctrl-C in the terminal is the demo's to pass on.

    Both its outputs go to `log`, or the standard one to `output`. Raises OSError where it cannot be started.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        output: Path | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        self.log = log
        with log.open("ab") as messages, (output or log).open("ab") as results:
            self._process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=results,
                stderr=messages,
                start_new_session=True,
                pass_fds=keep_open,
            )
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        if self._process.returncode is not None:
            return self._process.returncode
        # Looked at, not collected: until `stop` its id, which is its group's too, cannot become another's.
        end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if end is None:
            return None
        return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status

    def stop(self, patience: float = 10.0) -> None:
        """End it in the orderly way, by force after `patience` seconds, and then whatever it has left behind."""
        if self._process.returncode is not None:
            return
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while self.exit_code is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started, as `kill -9` does."""
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def last_lines(self, count: int = 12) -> list[str]:
        """The end of its log."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return log.read().decode(errors="replace").splitlines()[-count:]


class StepFailed(Exception):
    """Why a step of the demo cannot go on, in words, and the process whose log tells more, where there is one."""

    def __init__(self, reason: str, process: Process | None = None) -> None:
        super().__init__(reason)
        self.process = process


class HeldPort:
    """A port of this machine that nobody else is given until `close`, whether one of our processes listens or not.

    It is bound without listening, so a connection is refused while none does. SO_REUSEADDR on both sides lets a
    server that is told the number bind it too.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((HOST, 0))
        self.number: int = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.number}"

    def close(self) -> None:
        self._socket.close()
