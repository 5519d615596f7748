"""Runs background work as a command that stops in order at SIGTERM or SIGINT."""

import signal
import threading
from collections.abc import Sequence

from app.cli.output import note
from app.current import get_services
from app.process.background import Background


def check_database() -> None:
    """Print the database's warning, if any. Raises DatabaseUnfit if a person has to change something."""
    warning = get_services().database.check()
    if warning:
        note(warning)


def run_until_stopped(parts: Sequence[Background], message: str) -> None:
    """Start the parts, print `message`, and stop the parts in the same order at SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    get_services().database.health.is_logged = True  # this command survives database errors, so log them
    for part in parts:
        part.start()
    note(message)
    stopped.wait()
    for part in parts:
        part.stop()
