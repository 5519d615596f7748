"""Work that goes on in threads of its own, beside the requests, until it is stopped."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from app.process.failure_log import FailureLog
from app.process.threads import supervised


class Background(ABC):
    """Threads that begin with `start` and end with `stop`; one that ends by itself ends the process."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin, in new threads."""
        self._threads = [supervised(target, name, self._stopping) for name, target in self._targets().items()]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return once every thread has ended."""
        self._interrupt()
        self._join()

    @abstractmethod
    def _targets(self) -> Mapping[str, Callable[[], None]]:
        """What the threads do until `_stopping` is set, by their names."""

    def _interrupt(self) -> None:
        """Have every thread notice the end; a part whose threads wait for something else wakes them, too."""
        self._stopping.set()

    def _join(self, seconds: float | None = None) -> None:
        """Wait for all threads, or for so long."""
        deadline = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))


class BackgroundWork(Background):
    """Does its `work` again and again, `pause` seconds after the last; a failure is logged, and it is tried again.

    Nothing but the end shortens the pause.
    """

    def __init__(self, name: str, *, pause: float) -> None:
        super().__init__()
        self._name = name
        self._pause = pause
        self._failures = FailureLog("background_work_failed", work=name, again_in_seconds=pause)

    @abstractmethod
    def work(self) -> None:
        """One round; one that takes long ends soon after `_stopping` is set."""

    def _targets(self) -> Mapping[str, Callable[[], None]]:
        return {self._name: self._run}

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.work()
            except Exception as error:  # noqa: BLE001 (the next round may succeed)
                self._failures.failed(error)
            else:
                self._failures.succeeded()
            self._stopping.wait(self._pause)


class Periodic(BackgroundWork):
    """Calls `work` at the start and from time to time, with what tells whether it is to stop."""

    def __init__(self, name: str, work: Callable[[Callable[[], bool]], object], *, every: float) -> None:
        super().__init__(name, pause=every)
        self._work = work

    def work(self) -> None:
        """Call it once."""
        self._work(self._stopping.is_set)
