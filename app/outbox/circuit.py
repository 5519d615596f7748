"""The endpoint's circuit breaker and the holds on users, as values, and what a row of exchanges says of the endpoint.

Pure: no clock is read and nothing is stored here. Times are seconds since 1970 on the database's clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum, auto

from app.outbox.retry_policy import LONGEST_RETRY_AFTER

FEW, MANY = 5, 20
"""The circuit opens when the last FEW exchanges were all unfit, or MOST of the last MANY."""

MOST = 16
RECENT_SECONDS = 30.0
"""Of the last MANY only those of the last half minute count."""

LONGEST_WAIT = LONGEST_RETRY_AFTER + 60.0
"""No circuit and no hold waits longer, jitter and a probe's lease included: what does was written by a clock that has
been set back since, and is due now."""

STREAK_MARGIN_SECONDS = 5.0
"""What was parked so shortly before a streak of refusals, perhaps by another process, was refused by the same cause."""


class CircuitState(StrEnum):
    """`closed`: messages flow; `open`: suspended until `retry_at`; `half-open`: one probe is under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Circuit:
    """`failures` counts openings and failed probes in a row. `refusing_since` is set where everything is refused: what
    was parked from then on goes back when the circuit closes."""

    state: CircuitState = CircuitState.CLOSED
    failures: int = 0
    retry_at: float | None = None
    reason: str | None = None
    opened_at: float | None = None
    refusing_since: float | None = None

    @property
    def is_closed(self) -> bool:
        return self.state is CircuitState.CLOSED

    @property
    def refuses_everything(self) -> bool:
        return self.refusing_since is not None

    def wait(self, now: float) -> float:
        """Seconds until the next probe; 0 where one may go, or where messages flow."""
        seconds = (self.retry_at or now) - now
        return seconds if 0 < seconds <= LONGEST_WAIT else 0.0

    def opened(self, now: float, delay: float, reason: str, *, refusing_since: float | None = None) -> "Circuit":
        """Nothing but probes from now on."""
        return Circuit(CircuitState.OPEN, 1, now + delay, reason, now, refusing_since)

    def probe_failed(self, now: float, delay: float, reason: str) -> "Circuit":
        """Open for longer."""
        return replace(self, state=CircuitState.OPEN, failures=self.failures + 1, retry_at=now + delay, reason=reason)

    def probe_given_up(self, now: float) -> "Circuit":
        """Its probe was never sent: another may go at once."""
        return replace(self, state=CircuitState.OPEN, retry_at=now)


@dataclass(frozen=True, slots=True)
class Hold:
    """A user of whom nothing is sent until `until`, when one message probes."""

    since: float
    until: float
    failures: int
    reason: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The endpoint's condition: its circuit breaker, and the holds on those users that were asked for."""

    circuit: Circuit = field(default_factory=Circuit)
    holds: Mapping[str, Hold] = field(default_factory=dict)


class Vote(Enum):
    """What one exchange says of the endpoint."""

    FIT = auto()
    UNFIT = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request with its answer, or without one."""

    vote: Vote
    media_id: str
    user_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose message is under way."""

    media_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Window:
    """The last MANY exchanges of one dispatcher, the newest last."""

    exchanges: Sequence[Exchange] = ()

    def with_exchanges(self, new: Iterable[Exchange]) -> "Window":
        """This window moved on."""
        return Window((*self.exchanges, *new)[-MANY:])

    def opening_vote(self, under_way: Iterable[Sender], now: float) -> Vote | None:
        """Why the circuit is to open: UNFIT, or REFUSED where everything is refused; None where it is not.

        `under_way` are messages whose answers are still to come: through one user's or one media item's answers alone
        the circuit does not open while others are among them.
        """
        others = list(under_way)
        last = self.exchanges[-FEW:]
        if len(last) == FEW and all(one.vote is Vote.UNFIT for one in last) and _concerns_all(last, others):
            return Vote.UNFIT
        if len({one.media_id for one in last if one.vote is Vote.REFUSED}) == FEW and _concerns_all(last, others):
            return Vote.REFUSED
        recent = [one for one in self.exchanges if abs(now - one.at) <= RECENT_SECONDS]
        unfit = [one for one in recent if one.vote is Vote.UNFIT]
        if len(recent) == MANY and len(unfit) >= MOST and _concerns_all(unfit, others):
            return Vote.UNFIT
        return None

    @property
    def refusing_since(self) -> float:
        """When the refusals that end this window began, less what other processes may have been ahead."""
        began = self.exchanges[-1].at
        for one in reversed(self.exchanges):
            if one.vote is not Vote.REFUSED:
                break
            began = one.at
        return began - STREAK_MARGIN_SECONDS


def _concerns_all(votes: Sequence[Exchange], under_way: Sequence[Sender]) -> bool:
    media, users = {one.media_id for one in votes}, {one.user_id for one in votes}
    others_media = len(media) == 1 and any(one.media_id not in media for one in under_way)
    others_users = len(users) == 1 and any(one.user_id not in users for one in under_way)
    return not (others_media or others_users)
