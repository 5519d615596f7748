"""Timeouts for slow clients, while they send a body and while they read a response.

Neither a stalled nor a dripping client keeps its slot.
"""

import errno
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from app.errors import UploadTimedOut

_Received = TypeVar("_Received")

SEND_IDLE_SECONDS = 30.0
SEND_GRACE_SECONDS = 60.0
SEND_BYTES_PER_SECOND = 1024.0

CHECK_SECONDS = 1.0

MAX_CREDIT_SECONDS = 600.0
"""The most time that fast bytes can earn: a gigabyte in a minute must not pay for twelve days of dripping."""


class ReceiveTimeouts:
    """The timeouts of one request body.

    A client may send nothing for `idle_timeout` seconds. In total it may take `grace` seconds plus one second for each
    `bytes_per_second` received, of which at most `max_credit` seconds are left at any time. These limits end stalled
    clients, dripping clients, and clients that start fast and then drip.

    `check` is called every `check_seconds`, whether or not bytes arrive; its exception ends the body.
    """

    def __init__(
        self,
        idle_timeout: float,
        *,
        grace: float,
        bytes_per_second: float,
        max_credit: float = MAX_CREDIT_SECONDS,
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
        self._max_credit = max(max_credit, grace)
        self._deadline: float | None = None

    def next_timeout(self) -> float:
        """Return the seconds to wait for the next byte. Raises UploadTimedOut if the time is used up."""
        now = self._clock()
        left = self._deadline_at(now) - now
        if left <= 0:
            raise UploadTimedOut(f"the upload is slower than {self._bytes_per_second:g} bytes a second")
        return min(self._idle_timeout, left)

    def count(self, received: int) -> None:
        """Count received bytes."""
        now = self._clock()
        earned = self._deadline_at(now) + received / self._bytes_per_second
        self._deadline = min(earned, now + self._max_credit)
        self.run_check()

    @property
    def check_interval(self) -> float | None:
        """Seconds after which a wait must be interrupted for `look`; None without `check`."""
        return None if self._check is None else self._check_seconds

    def run_check(self, *, at_once: bool = False) -> None:
        """Call `check` if it is due, or now with `at_once`."""
        if self._check is not None and (at_once or self._clock() - self._checked >= self._check_seconds):
            self._checked = self._clock()
            self._check()

    def _deadline_at(self, now: float) -> float:
        if self._deadline is None:
            self._deadline = now + self._grace
        return self._deadline


class ReaderTooSlow(ConnectionResetError):
    """The client reads its response too slowly. gunicorn ignores it like a client that has left."""


class SendTimeouts:
    """The timeouts of one response.

    A client may acknowledge nothing for `idle_timeout` seconds. In total it may take `grace` seconds plus one second
    for each `bytes_per_second` acknowledged, of which at most `max_credit` seconds are left at any time. Only the time
    in which the response waits for its reader counts, so that a quiet event stream is not ended.
    """

    def __init__(
        self,
        idle_timeout: float = SEND_IDLE_SECONDS,
        *,
        grace: float = SEND_GRACE_SECONDS,
        bytes_per_second: float = SEND_BYTES_PER_SECOND,
        max_credit: float = MAX_CREDIT_SECONDS,
    ) -> None:
        self._idle_timeout = idle_timeout
        self._bytes_per_second = bytes_per_second
        self._max_credit = max(max_credit, grace)
        self._idle = 0.0
        self._left = grace

    def waited(self, seconds: float, acknowledged: int) -> None:
        """Count a wait in which that many bytes were acknowledged. Raises ReaderTooSlow if the time is used up."""
        self._idle = 0.0 if acknowledged else self._idle + seconds
        earned = acknowledged / self._bytes_per_second
        self._left = min(self._left - seconds + earned, self._max_credit)
        if self._idle >= self._idle_timeout:
            raise ReaderTooSlow(errno.ECONNRESET, f"the client read nothing for {self._idle:.3g} s")
        if self._left <= 0:
            raise ReaderTooSlow(
                errno.ECONNRESET, f"the client reads slower than {self._bytes_per_second:g} bytes a second"
            )


def receive_with_timeouts(
    sock: socket.socket, timeouts: ReceiveTimeouts, receive: Callable[[], _Received]
) -> _Received:
    """Return what `receive` returns, waiting as long as the timeouts allow. Raises UploadTimedOut beyond."""
    wait = timeouts.next_timeout()
    usual = sock.gettimeout()
    left = wait
    try:
        while True:
            part = left if timeouts.check_interval is None else min(left, timeouts.check_interval)
            sock.settimeout(part)
            try:
                return receive()
            except TimeoutError as error:
                left -= part
                if left <= 0:
                    raise UploadTimedOut(f"the client sent nothing for {wait:.3g} s") from error
                timeouts.run_check(at_once=True)
    finally:
        sock.settimeout(usual)
