"""Ctrl-C, SIGTERM and SIGHUP as one exception, raised once, and never between the making of a thing and its noting.

Whoever cleans up must know what there is to clean: while `held`, a signal waits; after the first, all are ignored.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The process was told to end, by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interruptions:
    """This process's signals from `install` on; for the main thread."""

    def __init__(self) -> None:
        self._holding = False
        self._waiting: int | None = None

    def install(self) -> None:
        """Raise Interrupted at the first signal. One that the caller's shell has us ignore stays ignored."""
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)

    def ignore(self) -> None:
        """No more of them: what comes now is cleaning up."""
        for number in _SIGNALS:
            # Not SIG_IGN: a process being started at this moment would inherit that, and not be ended by SIGTERM.
            signal.signal(number, lambda _number, _frame: None)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal that comes in here raises at the end of the block."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._waiting is not None:
            raise Interrupted(self._waiting)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.ignore()
        if self._holding:
            self._waiting = number
        else:
            raise Interrupted(number)
