"""Background work as a command of its own: it ends in order when a supervisor, or Ctrl-C, asks for it."""

import signal
import threading
from collections.abc import Sequence
from typing import Protocol

from app.cli.output import note


class Part(Protocol):
    """Works in threads of its own from `start` to `stop`."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


def run_until_stopped(parts: Sequence[Part], said: str) -> None:
    """Start the parts, say so, and stop them in the same order at SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    for part in parts:
        part.start()
    note(said)
    stopped.wait()
    for part in parts:
        part.stop()
