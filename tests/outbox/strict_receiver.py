"""A receiver that holds the sender to the contract: each media's messages in order, none before its turn, none lost.

It answers as it is told, so that what it has taken in and what the sender hears of it can differ, as on a real network.
"""

from collections import Counter, deque
from enum import Enum, auto

from app.outbox.messages import Answer, Message
from tests.outbox.world import BUSY, LOST, NOT_FOUND, OK, REFUSED, TROUBLE, UNREACHABLE, busy_for


class Fate(Enum):
    """What happens to one request."""

    ACCEPTED = auto()
    ANSWER_LOST = auto()  # taken in, but the sender never hears of it
    REQUEST_LOST = auto()
    TROUBLE = auto()
    REFUSED = auto()
    NOT_FOUND = auto()
    BUSY = auto()
    BUSY_FOR_LONG = auto()
    UNREACHABLE = auto()
    BREAKS = auto()  # the deliver function itself raises


ANSWERS = {
    Fate.ACCEPTED: OK,
    Fate.ANSWER_LOST: LOST,
    Fate.REQUEST_LOST: LOST,
    Fate.TROUBLE: TROUBLE,
    Fate.REFUSED: REFUSED,
    Fate.NOT_FOUND: NOT_FOUND,
    Fate.BUSY: BUSY,
    Fate.BUSY_FOR_LONG: busy_for(300),
    Fate.UNREACHABLE: UNREACHABLE,
}
TAKEN_IN = (Fate.ACCEPTED, Fate.ANSWER_LOST)
ENOUGH = 5
WEIGHT = {Fate.REFUSED: ENOUGH, Fate.NOT_FOUND: 1}


class StrictReceiver:
    """Meets each request with the next of `fates`, then accepts. `violations` names every breach of the contract."""

    def __init__(self) -> None:
        self.fates: deque[Fate] = deque()
        self.violations: list[str] = []
        self.requests: Counter[str] = Counter()
        self._refusals: Counter[tuple[str, int]] = Counter()
        self._skipped: set[tuple[str, int]] = set()
        self._keys: dict[str, tuple[str, int, str]] = {}
        self._last: dict[str, int] = {}

    def has(self, media_id: str, seq: int) -> bool:
        """Was this message taken in?"""
        return (media_id, seq) in {(media, number) for media, number, _content in self._keys.values()}

    def deserves_parking(self, media_id: str, seq: int) -> bool:
        """Was this message refused outright, or often enough?"""
        return self._refusals[media_id, seq] >= ENOUGH

    def expect_no(self, media_id: str, seq: int) -> None:
        """A person has skipped this message: the next one may come without it."""
        self._skipped.add((media_id, seq))

    def __call__(self, message: Message) -> Answer:
        self.requests[message.media_id] += 1
        self._check(message)
        fate = self.fates.popleft() if self.fates else Fate.ACCEPTED
        self._refusals[message.media_id, message.seq] += WEIGHT.get(fate, 0)
        if fate in TAKEN_IN:
            self._take_in(message)
        if fate is Fate.BREAKS:
            raise ConnectionError("what is this")
        return ANSWERS[fate]

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
        if message.idempotency_key in self._keys and not message.uncertain:
            self.violations.append(f"{name}: sent again as if it could not have arrived")

    def _take_in(self, message: Message) -> None:
        self._keys[message.idempotency_key] = (message.media_id, message.seq, str(message.payload))
        self._last[message.media_id] = max(message.seq, self._last.get(message.media_id, 0))
