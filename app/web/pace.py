"""How slow an uploading client may be, so that neither a stalled nor a dripping one keeps its slot."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.errors import UploadTimedOut

MOST_OWED_SECONDS = 600.0
"""What fast bytes may buy ahead: a gigabyte in a minute must not pay for twelve days of dripping."""


class Pace:
    """How slow a client may be: `idle_timeout` seconds without a byte, and in all `grace` seconds plus one second
    for each `bytes_per_second` that came, of which never more than `most_owed` seconds are left. The first frees a
    stalled client's slot, the second a dripping one's, the third that of one which began fast."""

    def __init__(
        self,
        idle_timeout: float,
        *,
        grace: float,
        bytes_per_second: float,
        most_owed: float = MOST_OWED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
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

    def _deadline_at(self, now: float) -> float:
        if self._deadline is None:
            self._deadline = now + self._grace
        return self._deadline


@contextmanager
def paced(sock: socket.socket, pace: Pace) -> Iterator[None]:
    """Let what is received within wait as long as `pace` allows now; raises UploadTimedOut beyond."""
    wait = pace.next_wait()
    usual = sock.gettimeout()
    sock.settimeout(wait)
    try:
        yield
    except TimeoutError as error:
        raise UploadTimedOut(f"the client sent nothing for {wait:.3g} s") from error
    finally:
        sock.settimeout(usual)
