"""Where answers without a slot go on once their thread has left them: the worker's main loop sends what their readers
are slow to take.

Places and memory are limited. Where they are used up, the slowest reader is cut off.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from selectors import EVENT_WRITE, BaseSelector
from typing import Any

import structlog

from app.web.server.answer_socket import LOOK_SECONDS, AnswerSocket
from app.web.upload.receive_timeouts import ReaderTooSlow

log = structlog.get_logger()

PLACES = 64
MOST_KEPT_BYTES = 32 << 20
_AT_ONCE = 256 * 1024
"""So that one fast reader does not keep the others, and new clients, waiting."""

_CREDIT_BYTES = 64 * 1024
_CREDIT_SECONDS = 1.0
"""What a reader counts as having read, in so long, before it has had the time to: the newest is not the slowest."""


@dataclass(eq=False, slots=True)
class _Draining:
    sock: Any
    client: str
    answer: AnswerSocket
    then: Callable[[], None]
    dropped: Callable[[], None]
    began: float
    looked_at: float

    @property
    def speed(self) -> float:
        """Bytes a second."""
        seconds = self.looked_at - self.began
        return (self.answer.acknowledged + _CREDIT_BYTES) / (seconds + _CREDIT_SECONDS)


class AnswerDrain:
    """The rests of answers, sent by one thread as their readers take them."""

    def __init__(
        self,
        poller: BaseSelector,
        *,
        places: int = PLACES,
        most_kept: int = MOST_KEPT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._poller = poller
        self._places = places
        self._most_kept = most_kept
        self._clock = clock
        self._draining: list[_Draining] = []
        self._looked_at = clock()

    def __len__(self) -> int:
        return len(self._draining)

    def add(
        self, sock: Any, client: str, answer: AnswerSocket, *, then: Callable[[], None], dropped: Callable[[], None]
    ) -> None:
        """Send the rest of this answer; then call `then`, or `dropped` where its client was cut off or has gone."""
        now = self._clock()
        one = _Draining(sock, client, answer, then, dropped, began=now, looked_at=now)
        try:
            sock.setblocking(False)
            self._poller.register(sock, EVENT_WRITE, partial(self._send, one))
        except (OSError, ValueError, KeyError):  # closed meanwhile
            answer.forget_rest()
            dropped()
            return
        self._draining.append(one)
        self._make_room()

    def cut_off_late(self) -> None:
        """Cut off who reads too slowly. To be called often: it looks every LOOK_SECONDS."""
        if not self._draining or self._clock() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = self._clock()
        for one in list(self._draining):
            self._look(one)

    def _send(self, one: _Draining, _sock: Any) -> None:
        try:
            one.answer.send_rest(_AT_ONCE)
        except OSError:  # the client has gone
            self._drop(one)
            return
        if not one.answer.has_rest:
            self._remove(one)
            one.then()

    def _look(self, one: _Draining) -> None:
        now = self._clock()
        seconds, one.looked_at = now - one.looked_at, now
        try:
            one.answer.waited(seconds)
        except ReaderTooSlow as error:
            self._cut_off(one, str(error.strerror))
        except OSError:
            self._drop(one)

    def _make_room(self) -> None:
        while len(self._draining) > self._places or self._kept_bytes() > self._most_kept:
            self._cut_off(min(self._draining, key=attrgetter("speed")), "others need its place")

    def _kept_bytes(self) -> int:
        return sum(one.answer.kept_bytes for one in self._draining)

    def _cut_off(self, one: _Draining, reason: str) -> None:
        log.info("slow_reader_cut_off", client=one.client, reason=reason)
        one.answer.abort()
        self._drop(one)

    def _drop(self, one: _Draining) -> None:
        self._remove(one)
        one.answer.forget_rest()
        one.dropped()

    def _remove(self, one: _Draining) -> None:
        self._draining.remove(one)
        self._poller.unregister(one.sock)
