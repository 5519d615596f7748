"""Work that goes on in a thread of its own, beside the requests, until it is stopped."""

import threading
from abc import ABC, abstractmethod

from app.failure_log import FailureLog
from app.threads import watched


class BackgroundWork(ABC):
    """Does its `work` again and again, `pause` seconds after the last; a failure is logged, and it is tried again.

    Nothing but the end shortens the pause.
    """

    def __init__(self, name: str, *, pause: float) -> None:
        self._pause = pause
        self._failures = FailureLog("background_work_failed", work=name, again_in_seconds=pause)
        self._stopping = threading.Event()
        self._thread = watched(self._run, name, self._stopping)

    def start(self) -> None:
        """Begin, in a new thread."""
        self._thread.start()

    def stop(self) -> None:
        """Return once the work at hand has ended."""
        self._stopping.set()
        self._thread.join()

    @abstractmethod
    def work(self) -> None:
        """One round; one that takes long ends soon after `_stopping` is set."""

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.work()
            except Exception as error:  # noqa: BLE001 (the next round may succeed)
                self._failures.failed(error)
            else:
                self._failures.succeeded()
            self._stopping.wait(self._pause)
