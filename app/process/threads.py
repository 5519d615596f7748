"""Threads that a process cannot do without: one that ends without being asked ends its process.

Whoever started the process, gunicorn or a supervisor, starts another one. A thread that is missing would be noticed by
nobody: uploads go on, and nothing is detected or delivered any more.
"""

import os
import signal
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()

ended_threads: list[str] = []
"""The names of threads that ended without being asked; /healthz tells of them until the process has ended."""


def supervised(target: Callable[[], None], name: str, stopping: threading.Event) -> threading.Thread:
    """A daemon thread of `target`, not yet started, that may end only once `stopping` is set."""

    def run() -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001 (whatever it was, the process ends of it)
            if not stopping.is_set():
                _end(name, error)
        else:
            if not stopping.is_set():
                _end(name, None)

    return threading.Thread(target=run, name=name, daemon=True)


def _end(name: str, error: BaseException | None) -> None:
    ended_threads.append(name)
    log.critical("thread_ended", thread=name, exc_info=error)
    os.kill(os.getpid(), signal.SIGTERM)
