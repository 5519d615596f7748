"""The values of the endpoint's circuit breaker: its state, the holds on users, and the window of recent exchanges.

Nothing here reads a clock or the database. Times are seconds since 1970 on the database's clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum, auto

from app.outbox.retry_policy import LONGEST_RETRY_AFTER

CONSECUTIVE_THRESHOLD, WINDOW_SIZE = 5, 20
"""The circuit opens when the last CONSECUTIVE_THRESHOLD exchanges were all unfit, or WINDOW_THRESHOLD of the last
WINDOW_SIZE."""

WINDOW_THRESHOLD = 16
RECENT_SECONDS = 30.0
"""Only exchanges of the last RECENT_SECONDS count towards WINDOW_THRESHOLD."""

LONGEST_WAIT = LONGEST_RETRY_AFTER + 60.0
"""The longest wait of a circuit or hold, including jitter and a probe's lease. A time further ahead was written before
the clock was set back; it counts as due now."""

STREAK_MARGIN_SECONDS = 5.0
"""Messages parked up to this long before a streak of refusals count as part of it: another process may have parked
them."""


class CircuitState(StrEnum):
    """`closed`: messages flow; `open`: suspended until `retry_at`; `half-open`: one probe is under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Circuit:
    """The state of one endpoint's circuit breaker.

    `failures` counts the opening and the failed probes since. `refusing_since` is set if the endpoint refuses every
    message: streams parked since then are unparked when the circuit closes.
    """

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
        """Return the seconds until the next probe; 0 if one may be sent now or the circuit is closed."""
        seconds = (self.retry_at or now) - now
        return seconds if 0 < seconds <= LONGEST_WAIT else 0.0

    def opened(self, now: float, delay: float, reason: str, *, refusing_since: float | None = None) -> "Circuit":
        """Return the circuit opened now, with the first probe after `delay` seconds."""
        return Circuit(CircuitState.OPEN, 1, now + delay, reason, now, refusing_since)

    def probe_failed(self, now: float, delay: float, reason: str) -> "Circuit":
        """Return the circuit after a failed probe, with the next one after `delay` seconds."""
        return replace(self, state=CircuitState.OPEN, failures=self.failures + 1, retry_at=now + delay, reason=reason)

    def probe_unsent(self, now: float) -> "Circuit":
        """Return the circuit after a probe that was never sent; another one may be sent at once."""
        return replace(self, state=CircuitState.OPEN, retry_at=now)


@dataclass(frozen=True, slots=True)
class Hold:
    """A user whose messages are suspended until `until`, when one of them is sent as a probe."""

    since: float
    until: float
    failures: int
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointState:
    """An endpoint's circuit and the holds on its users, by user id."""

    circuit: Circuit = field(default_factory=Circuit)
    holds: Mapping[str, Hold] = field(default_factory=dict)


class Signal(Enum):
    """What one exchange says about the endpoint."""

    FIT = auto()  # it works
    UNFIT = auto()  # it does not work
    REFUSED = auto()  # it refused this message; it is unfit only if it refuses every message


@dataclass(frozen=True, slots=True)
class Sample:
    """One exchange with the endpoint, as the window keeps it."""

    signal: Signal
    media_id: str
    user_id: str
    at: float


@dataclass(frozen=True, slots=True)
class InFlight:
    """A message whose answer has not been recorded yet."""

    media_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Window:
    """The last WINDOW_SIZE exchanges of one dispatcher, newest last."""

    samples: Sequence[Sample] = ()

    def with_samples(self, new: Iterable[Sample]) -> "Window":
        """Return the window with `new` added."""
        return Window((*self.samples, *new)[-WINDOW_SIZE:])

    def opening_signal(self, in_flight: Iterable[InFlight], now: float) -> Signal | None:
        """Return the reason to open the circuit, UNFIT or REFUSED; None if it stays closed.

        Answers about a single user or media item do not open the circuit while messages of others are `in_flight`.
        """
        others = list(in_flight)
        last = self.samples[-CONSECUTIVE_THRESHOLD:]
        if (
            len(last) == CONSECUTIVE_THRESHOLD
            and all(sample.signal is Signal.UNFIT for sample in last)
            and _concerns_all(last, others)
        ):
            return Signal.UNFIT
        if len(
            {sample.media_id for sample in last if sample.signal is Signal.REFUSED}
        ) == CONSECUTIVE_THRESHOLD and _concerns_all(last, others):
            return Signal.REFUSED
        recent = [sample for sample in self.samples if abs(now - sample.at) <= RECENT_SECONDS]
        unfit = [sample for sample in recent if sample.signal is Signal.UNFIT]
        if len(recent) == WINDOW_SIZE and len(unfit) >= WINDOW_THRESHOLD and _concerns_all(unfit, others):
            return Signal.UNFIT
        return None

    @property
    def refusing_since(self) -> float:
        """When the refusals at the end of this window began, less STREAK_MARGIN_SECONDS."""
        began = self.samples[-1].at
        for sample in reversed(self.samples):
            if sample.signal is not Signal.REFUSED:
                break
            began = sample.at
        return began - STREAK_MARGIN_SECONDS


def _concerns_all(samples: Sequence[Sample], in_flight: Sequence[InFlight]) -> bool:
    media, users = {sample.media_id for sample in samples}, {sample.user_id for sample in samples}
    others_media = len(media) == 1 and any(message.media_id not in media for message in in_flight)
    others_users = len(users) == 1 and any(message.user_id not in users for message in in_flight)
    return not (others_media or others_users)
