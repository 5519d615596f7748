"""Background work as a command of its own: it ends in order when a supervisor, or Ctrl-C, asks for it."""

import signal
import threading
from collections.abc import Sequence

from app.cli.output import note
from app.current import get_services
from app.process.background import Background


def check_database() -> None:
    """Say what is worth knowing about the database; raises DatabaseUnfit where a person has to change something."""
    noticed = get_services().database.check()
    if noticed:
        note(noticed)


def run_until_stopped(parts: Sequence[Background], said: str) -> None:
    """Start the parts, say so, and stop them in the same order at SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    get_services().database.health.is_logged = True  # this command does not end with what it meets
    for part in parts:
        part.start()
    note(said)
    stopped.wait()
    for part in parts:
        part.stop()
