"""Supervised threads: one that ends by itself ends its process, which gunicorn or a supervisor then starts again.

Without that a missing thread would go unnoticed: uploads continue, but nothing is detected or delivered.
"""

import os
import signal
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()

ended_threads: list[str] = []
"""The names of threads that ended by themselves; /healthz reports them until the process has ended."""


def supervised(target: Callable[[], None], name: str, stopping: threading.Event) -> threading.Thread:
    """Return a daemon thread of `target`, not yet started, that may only end after `stopping` is set."""

    def run() -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001 (any error ends the process)
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
