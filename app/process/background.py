"""Background work in threads of its own, until it is stopped."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from app.process.failure_log import FailureLog
from app.process.threads import supervised


class Background(ABC):
    """Threads between `start` and `stop`; a thread that ends by itself ends the process."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        self._threads = [supervised(target, name, self._stopping) for name, target in self._targets().items()]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads and wait until all have ended."""
        self._interrupt()
        self._join()

    @abstractmethod
    def _targets(self) -> Mapping[str, Callable[[], None]]:
        """Return the function that each thread runs until `_stopping` is set, by the thread's name."""

    def _interrupt(self) -> None:
        """Set `_stopping`; a subclass whose threads wait for something else also wakes them."""
        self._stopping.set()

    def _join(self, seconds: float | None = None) -> None:
        """Wait until all threads have ended, at most `seconds`."""
        deadline = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))


class BackgroundWork(Background):
    """Repeats its `work`, with a pause of `pause` seconds after each round; a failure is logged."""

    def __init__(self, name: str, *, pause: float) -> None:
        super().__init__()
        self._name = name
        self._pause = pause
        self._failures = FailureLog("background_work_failed", work=name, again_in_seconds=pause)

    @abstractmethod
    def work(self) -> None:
        """Do one round; a long one returns soon after `_stopping` is set."""

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
    """Calls `work(is_stopping)` at the start and every `every` seconds."""

    def __init__(self, name: str, work: Callable[[Callable[[], bool]], object], *, every: float) -> None:
        super().__init__(name, pause=every)
        self._work = work

    def work(self) -> None:
        """Call the function once."""
        self._work(self._stopping.is_set)
