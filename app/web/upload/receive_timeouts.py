"""How slow a client may be, one that uploads and one that reads its answer, so that neither a stalled nor a dripping
one keeps its slot."""

import errno
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from app.errors import UploadTimedOut

_Received = TypeVar("_Received")

READER_IDLE_SECONDS = 30.0
READER_GRACE_SECONDS = 60.0
READER_BYTES_PER_SECOND = 1024.0

CHECK_SECONDS = 1.0

MOST_OWED_SECONDS = 600.0
"""What fast bytes may buy ahead: a gigabyte in a minute must not pay for twelve days of dripping."""


class Pace:
    """How slow a client may be: `idle_timeout` seconds without a byte, and in all `grace` seconds plus one second
    for each `bytes_per_second` that came, of which never more than `most_owed` seconds are left. The first frees a
    stalled client's slot, the second a dripping one's, the third that of one which began fast.

    `check` is called every `check_seconds` while bytes come and while none do; what it raises ends the body."""

    def __init__(
        self,
        idle_timeout: float,
        *,
        grace: float,
        bytes_per_second: float,
        most_owed: float = MOST_OWED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        check: Callable[[], None] | None = None,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._check = check
        self._check_seconds = check_seconds
        self._checked = clock()
        self._idle_timeout = idle_timeout
        self._grace = grace
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._most_owed = max(most_owed, grace)
        self._deadline: float | None = None

    def next_wait(self) -> float:
        """Seconds to wait for the next byte. Raises UploadTimedOut when the time is used up."""
        now = self._clock()
        left = self._deadline_at(now) - now
        if left <= 0:
            raise UploadTimedOut(f"the upload is slower than {self._bytes_per_second:g} bytes a second")
        return min(self._idle_timeout, left)

    def count(self, received: int) -> None:
        """Note that so many bytes came."""
        now = self._clock()
        earned = self._deadline_at(now) + received / self._bytes_per_second
        self._deadline = min(earned, now + self._most_owed)
        self.look()

    @property
    def longest_wait(self) -> float | None:
        """Seconds after which a wait is to be interrupted for `look`; None where nothing is checked."""
        return None if self._check is None else self._check_seconds

    def look(self, *, at_once: bool = False) -> None:
        """Call `check`, if its time has come or if it is to be called at once."""
        if self._check is not None and (at_once or self._clock() - self._checked >= self._check_seconds):
            self._checked = self._clock()
            self._check()

    def _deadline_at(self, now: float) -> float:
        if self._deadline is None:
            self._deadline = now + self._grace
        return self._deadline


class ReaderTooSlow(ConnectionResetError):
    """The client takes its answer slower than it may. gunicorn passes over it as over a client that has gone."""


class ReaderPace:
    """How slow a client may take its answer: `idle_timeout` seconds without acknowledging a byte, and in all `grace`
    seconds plus one second for each `bytes_per_second` that it acknowledged, of which never more than `most_owed`
    seconds are left.

    Only the time in which the answer waits for its reader counts, or an event stream would be cut off because nothing
    happens.
    """

    def __init__(
        self,
        idle_timeout: float = READER_IDLE_SECONDS,
        *,
        grace: float = READER_GRACE_SECONDS,
        bytes_per_second: float = READER_BYTES_PER_SECOND,
        most_owed: float = MOST_OWED_SECONDS,
    ) -> None:
        self._idle_timeout = idle_timeout
        self._bytes_per_second = bytes_per_second
        self._most_owed = max(most_owed, grace)
        self._idle = 0.0
        self._left = grace

    def waited(self, seconds: float, acknowledged: int) -> None:
        """Note that the answer waited so long, while so many bytes were acknowledged. Raises ReaderTooSlow when the
        reader's time is used up."""
        self._idle = 0.0 if acknowledged else self._idle + seconds
        earned = acknowledged / self._bytes_per_second
        self._left = min(self._left - seconds + earned, self._most_owed)
        if self._idle >= self._idle_timeout:
            raise ReaderTooSlow(errno.ECONNRESET, f"the client read nothing for {self._idle:.3g} s")
        if self._left <= 0:
            raise ReaderTooSlow(
                errno.ECONNRESET, f"the client reads slower than {self._bytes_per_second:g} bytes a second"
            )


def receive_paced(sock: socket.socket, pace: Pace, receive: Callable[[], _Received]) -> _Received:
    """What `receive` returns, which may wait as long as `pace` allows now; raises UploadTimedOut beyond."""
    wait = pace.next_wait()
    usual = sock.gettimeout()
    left = wait
    try:
        while True:
            piece = left if pace.longest_wait is None else min(left, pace.longest_wait)
            sock.settimeout(piece)
            try:
                return receive()
            except TimeoutError as error:
                left -= piece
                if left <= 0:
                    raise UploadTimedOut(f"the client sent nothing for {wait:.3g} s") from error
                pace.look(at_once=True)
    finally:
        sock.settimeout(usual)
