"""The idle detectors of a process: threads that wait for work, or for a picture whose run is about to be recorded."""

import threading

from app.runs.speculative_run import SpeculativeRun


class IdleDetectors:
    """The threads that wait for work. Safe to use from all threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._given: list[SpeculativeRun] = []
        self._idle = 0  # threads that have waited since the last call
        self.calls = 0
        """The number of calls; a thread reads it before it looks for work, and passes it to `wait` if it finds none."""

    def __len__(self) -> int:
        return self._idle

    def call(self) -> None:
        """Wake all threads, because there may be work."""
        with self._changed:
            self.calls += 1
            self._idle = 0
            self._changed.notify_all()

    def wait(self, seen: int, seconds: float) -> SpeculativeRun | None:
        """Wait up to `seconds` for another call than the `seen` ones, or for a run, which is returned."""
        with self._changed:
            self._idle += seen == self.calls
            self._changed.wait_for(lambda: self._given or seen != self.calls, seconds)
            self._idle -= seen == self.calls
            return self._given.pop() if self._given else None

    def give(self, run: SpeculativeRun) -> bool:
        """Give a run to an idle thread. Returns False if there is none; a thread that was called is not idle."""
        with self._changed:
            if len(self._given) >= self._idle:
                return False
            self._given.append(run)
            self._changed.notify()
            return True
