"""A receiver that checks the order of messages: of each media item in sequence, none too early and none lost.

Its answers are set by the test, so they can differ from what it has applied, as on a real network.
"""

from collections import Counter, deque
from dataclasses import replace
from enum import Enum, auto

from app.outbox.messages import Classification, Message
from tests.outbox.world import (
    BUSY,
    CONTRADICTED,
    DUPLICATE,
    HELD,
    LOST,
    NOT_FOUND,
    OK,
    REFUSED,
    SERVER_ERROR,
    UNCONFIRMED,
    UNREACHABLE,
    busy_for,
    held_for,
)


class Fate(Enum):
    """What happens to a request."""

    ACCEPTED = auto()
    ANSWER_LOST = auto()  # taken in, but the sender never hears of it
    REQUEST_LOST = auto()
    SERVER_ERROR = auto()
    REFUSED = auto()
    REFUSED_FOR_NOW = auto()  # it says when to return
    CONTRADICTED = auto()
    NOT_FOUND = auto()
    AT_WORK = auto()  # its first request is still being worked on, which ends well; until then the key is a conflict
    HELD = auto()
    HELD_FOR_LONG = auto()
    BUSY = auto()
    BUSY_FOR_LONG = auto()
    UNREACHABLE = auto()
    BREAKS = auto()  # the deliver function itself raises


ANSWERS = {
    Fate.ACCEPTED: OK,
    Fate.ANSWER_LOST: LOST,
    Fate.REQUEST_LOST: LOST,
    Fate.SERVER_ERROR: SERVER_ERROR,
    Fate.REFUSED: REFUSED,
    Fate.REFUSED_FOR_NOW: replace(REFUSED, retry_after=20.0),
    Fate.CONTRADICTED: CONTRADICTED,
    Fate.NOT_FOUND: NOT_FOUND,
    Fate.AT_WORK: LOST,
    Fate.HELD: HELD,
    Fate.HELD_FOR_LONG: held_for(300),
    Fate.BUSY: BUSY,
    Fate.BUSY_FOR_LONG: busy_for(300),
    Fate.UNREACHABLE: UNREACHABLE,
}
TAKEN_IN = (Fate.ACCEPTED, Fate.ANSWER_LOST)
REFUSALS = {Fate.REFUSED: 2, Fate.NOT_FOUND: 5, Fate.CONTRADICTED: 1}
"""How often a message must at least have been answered so before it may be parked."""

AT_WORK_FOR = 3
"""Requests with a key that is being worked on are answered with a conflict, so many times."""


class StrictReceiver:
    """Treats each request by the next of `fates`, then accepts. `violations` lists every violation of the order."""

    def __init__(self) -> None:
        self.fates: deque[Fate] = deque()
        self.violations: list[str] = []
        self.requests: Counter[str] = Counter()
        self._refusals: Counter[tuple[str, int, Fate]] = Counter()
        self._at_work: dict[str, int] = {}
        self._skipped: set[tuple[str, int]] = set()
        self._keys: dict[str, tuple[str, int, str]] = {}
        self._last: dict[str, int] = {}

    def has(self, media_id: str, seq: int) -> bool:
        """Whether the message was applied."""
        return (media_id, seq) in {(media, number) for media, number, _content in self._keys.values()}

    def deserves_parking(self, media_id: str, seq: int) -> bool:
        """Whether the message was refused often enough to be parked."""
        return sum(self._refusals[media_id, seq, fate] / often for fate, often in REFUSALS.items()) >= 1

    def expect_no(self, media_id: str, seq: int) -> None:
        """Accept the next message without this one, because a person has skipped it."""
        self._skipped.add((media_id, seq))

    def __call__(self, message: Message) -> Classification:
        self.requests[message.media_id] += 1
        self._check(message)
        if message.idempotency_key in self._at_work:
            return self._conflict(message)
        fate = self.fates.popleft() if self.fates else Fate.ACCEPTED
        self._refusals[message.media_id, message.seq, fate] += 1
        if fate is Fate.AT_WORK and message.idempotency_key not in self._keys:
            self._at_work[message.idempotency_key] = AT_WORK_FOR
        if fate in TAKEN_IN:
            self._take_in(message)
        if fate is Fate.BREAKS:
            raise ConnectionError("what is this")
        return ANSWERS[fate]

    def _conflict(self, message: Message) -> Classification:
        """Answer 409, and let the record confirm the message once its first request is done."""
        left = self._at_work[message.idempotency_key] - 1
        self._at_work[message.idempotency_key] = left
        if left > 0:
            return UNCONFIRMED
        del self._at_work[message.idempotency_key]
        self._take_in(message)
        return DUPLICATE

    def _check(self, message: Message) -> None:
        name = f"{message.media_id} {message.seq}"
        content = (message.media_id, message.seq, str(message.payload))
        if self._keys.get(message.idempotency_key, content) != content:
            self.violations.append(f"{name}: its key was used for another message")
        last = self._last.get(message.media_id, 0)
        missing = [seq for seq in range(last + 1, message.seq) if (message.media_id, seq) not in self._skipped]
        if missing:
            self.violations.append(f"{name}: {missing} should have come before")
        if message.seq <= last and message.idempotency_key not in self._keys:
            self.violations.append(f"{name}: comes after {last}, and is new")
        if message.seq < last:
            self.violations.append(f"{name}: sent again though {last} was taken in")
        if message.idempotency_key in self._keys and not message.outcome_unknown:
            self.violations.append(f"{name}: sent again as if it could not have arrived")

    def _take_in(self, message: Message) -> None:
        self._keys[message.idempotency_key] = (message.media_id, message.seq, str(message.payload))
        self._last[message.media_id] = max(message.seq, self._last.get(message.media_id, 0))
