"""How slow an uploading client may be, so that neither a stalled nor a dripping one keeps its slot."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.errors import UploadTimedOut


class Pace:
    """How slow a client may be: `idle_timeout` seconds without a byte, and in all `grace` seconds plus one second
    for each `bytes_per_second` that came. The first frees a stalled client's slot, the second a dripping one's."""

    def __init__(
        self,
        idle_timeout: float,
        *,
        grace: float,
        bytes_per_second: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle_timeout = idle_timeout
        self._grace = grace
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._started: float | None = None
        self._received = 0

    def next_wait(self) -> float:
        """Seconds to wait for the next byte. Raises UploadTimedOut when the time is used up."""
        now = self._clock()
        if self._started is None:
            self._started = now
        left = self._started + self._grace + self._received / self._bytes_per_second - now
        if left <= 0:
            raise UploadTimedOut(f"the upload is slower than {self._bytes_per_second:g} bytes a second")
        return min(self._idle_timeout, left)

    def count(self, received: int) -> None:
        """Note that so many bytes came."""
        self._received += received


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
