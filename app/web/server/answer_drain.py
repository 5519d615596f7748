"""Sends the rest of responses without a slot from the worker's main loop, after their thread was released.

The number of responses and their memory are limited; beyond the limits the slowest reader is disconnected.
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

MAX_ANSWERS = 64
MAX_MEMORY_BYTES = 32 << 20
_CHUNK_BYTES = 256 * 1024
"""Bytes sent at a time, so that a fast reader does not delay others and new clients."""

_CREDIT_BYTES = 64 * 1024
_CREDIT_SECONDS = 1.0
"""A reader's initial credit of bytes and seconds, so that the newest is not counted as the slowest."""


@dataclass(eq=False, slots=True)
class _Draining:
    sock: Any
    client: str
    answer: AnswerSocket
    then: Callable[[], None]
    dropped: Callable[[], None]
    began: float
    checked_at: float

    @property
    def speed(self) -> float:
        """Bytes per second."""
        seconds = self.checked_at - self.began
        return (self.answer.acknowledged + _CREDIT_BYTES) / (seconds + _CREDIT_SECONDS)


class AnswerDrain:
    """The rest of responses, sent by one thread as their readers accept them."""

    def __init__(
        self,
        poller: BaseSelector,
        *,
        max_answers: int = MAX_ANSWERS,
        max_memory: int = MAX_MEMORY_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._poller = poller
        self._max_answers = max_answers
        self._max_memory = max_memory
        self._clock = clock
        self._draining: list[_Draining] = []
        self._checked_at = clock()

    def __len__(self) -> int:
        return len(self._draining)

    def add(
        self, sock: Any, client: str, answer: AnswerSocket, *, then: Callable[[], None], dropped: Callable[[], None]
    ) -> None:
        """Send the rest of the response, then call `then`; call `dropped` if the client was disconnected or left."""
        now = self._clock()
        draining = _Draining(sock, client, answer, then, dropped, began=now, checked_at=now)
        try:
            sock.setblocking(False)
            self._poller.register(sock, EVENT_WRITE, partial(self._send, draining))
        except (OSError, ValueError, KeyError):  # the connection was closed meanwhile
            answer.forget_rest()
            dropped()
            return
        self._draining.append(draining)
        self._make_room()

    def cut_off_late(self) -> None:
        """Disconnect readers that are too slow. Call it often; it checks every LOOK_SECONDS."""
        if not self._draining or self._clock() - self._checked_at < LOOK_SECONDS:
            return
        self._checked_at = self._clock()
        for draining in list(self._draining):
            self._check(draining)

    def _send(self, draining: _Draining, _sock: Any) -> None:
        try:
            draining.answer.send_rest(_CHUNK_BYTES)
        except OSError:  # the client has gone
            self._drop(draining)
            return
        if not draining.answer.has_rest:
            self._remove(draining)
            draining.then()

    def _check(self, draining: _Draining) -> None:
        now = self._clock()
        seconds, draining.checked_at = now - draining.checked_at, now
        try:
            draining.answer.waited(seconds)
        except ReaderTooSlow as error:
            self._cut_off(draining, str(error.strerror))
        except OSError:
            self._drop(draining)

    def _make_room(self) -> None:
        while len(self._draining) > self._max_answers or self._kept_bytes() > self._max_memory:
            self._cut_off(min(self._draining, key=attrgetter("speed")), "the limit of slow responses is reached")

    def _kept_bytes(self) -> int:
        return sum(draining.answer.kept_bytes for draining in self._draining)

    def _cut_off(self, draining: _Draining, reason: str) -> None:
        log.info("slow_reader_cut_off", client=draining.client, reason=reason)
        draining.answer.abort()
        self._drop(draining)

    def _drop(self, draining: _Draining) -> None:
        self._remove(draining)
        draining.answer.forget_rest()
        draining.dropped()

    def _remove(self, draining: _Draining) -> None:
        self._draining.remove(draining)
        self._poller.unregister(draining.sock)
