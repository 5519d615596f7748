"""Where the threads of detectors wait while there is nothing to do, and where an upload finds one that waits."""

import threading

from app.runs.speculative_run import SpeculativeRun


class IdleDetectors:
    """Safe to use from all threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._given: list[SpeculativeRun] = []
        self._waiting = 0  # since the last call; whoever was called before looks for something to do
        self.calls = 0
        """To be read before a thread looks for something to do, and handed to `wait` if it finds nothing."""

    def __len__(self) -> int:
        return self._waiting

    def call(self) -> None:
        """Have all of them look: there may be something to do."""
        with self._changed:
            self.calls += 1
            self._waiting = 0
            self._changed.notify_all()

    def wait(self, seen: int, seconds: float) -> SpeculativeRun | None:
        """Until there was another call than those seen, or for so long, or to return what is given meanwhile."""
        with self._changed:
            self._waiting += seen == self.calls
            self._changed.wait_for(lambda: self._given or seen != self.calls, seconds)
            self._waiting -= seen == self.calls
            return self._given.pop() if self._given else None

    def give(self, run: SpeculativeRun) -> bool:
        """To one that is idle; False where none is, or where it has been called to something that was there first."""
        with self._changed:
            if len(self._given) >= self._waiting:
                return False
            self._given.append(run)
            self._changed.notify()
            return True
