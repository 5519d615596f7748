"""The threads that send claimed messages, and nothing else: no SQL here, and no decision but when it is too late.

No send starts with less lease left than its own deadline, so that what a send does to the other side has always been
heard of, or has timed out, before another dispatcher may take the media.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import structlog

from app.outbox.messages import Answer, Deliver, Verdict
from app.outbox.queue import Claim, Try
from app.outbox.retry import RetryPolicy

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sent:
    """A claim that came back: `tried` is None where it was not sent (too little lease left, or shutting down)."""

    claim: Claim
    probe: bool
    tried: Try | None


AHEAD = 25
"""Claims waiting for each thread at most: half of them last while the outcomes of the other half are recorded."""

AHEAD_SECONDS = 0.1
"""How long a claim may wait for its thread: with a slow receiver, claims are better left to other processes."""

_MEMORY = 0.2


class Senders:
    """A fixed number of threads, with some claims waiting for each.

    `on_sent` is called in one of them when what came back should be collected: at once where the claims that wait run
    short, later where recording more of them together costs nobody time.
    """

    def __init__(
        self,
        deliver: Deliver,
        policy: RetryPolicy,
        *,
        count: int,
        lease: float,
        deadline: float,
        on_sent: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver = deliver
        self._count = count
        self._sendable_for = lease - deadline
        self._on_sent = on_sent
        self._monotonic = monotonic
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="outbox-sender")
        self._sent: deque[Sent] = deque()
        self._busy = 0
        self._unsent = 0
        self._typical_seconds = AHEAD_SECONDS
        self._guard = threading.Lock()
        self._gate_closed = False
        self.stopping = threading.Event()
        self._within_claim = policy.within_claim(self.stopping)

    @property
    def free(self) -> int:
        """How many more claims can be taken."""
        return self._count + self._ahead - self._busy

    @property
    def _ahead(self) -> int:
        """How many claims may wait."""
        return int(self._count * min(AHEAD, AHEAD_SECONDS / max(self._typical_seconds, 1e-6)))

    @property
    def collectable(self) -> bool:
        return bool(self._sent)

    def submit(self, claim: Claim, *, probe: bool, leased_at: float) -> None:
        """Send a claim whose lease was taken at `leased_at` on the monotonic clock."""
        self._busy += 1
        with self._guard:
            self._unsent += 1
            self._gate_closed = False
        self._pool.submit(self._send, claim, probe, leased_at)

    def collect(self) -> list[Sent]:
        """What has come back since the last call."""
        sent = [self._sent.popleft() for _ in range(len(self._sent))]
        self._busy -= len(sent)
        for one in sent:
            if one.tried is not None:
                self._typical_seconds += _MEMORY * (one.tried.duration - self._typical_seconds)
        return sent

    def put_back(self, sent: list[Sent]) -> None:
        """Take back what could not be recorded, to be collected again."""
        self._busy += len(sent)
        self._sent.extendleft(reversed(sent))

    def close(self) -> None:
        """Start nothing more, and wait for what is under way."""
        self.stopping.set()
        self._pool.shutdown(wait=True)

    def _send(self, claim: Claim, probe: bool, leased_at: float) -> None:
        with self._guard:
            self._unsent -= 1
            holds_back = self._gate_closed or self.stopping.is_set()
        tried = None if holds_back else self._try(claim, leased_at + self._sendable_for)
        self._sent.append(Sent(claim, probe, tried))
        with self._guard:
            # The claims behind it are given back untried: the gate is closed to them from now on.
            self._gate_closed |= tried is not None and tried.answer.verdict is Verdict.CLOSE_GATE
            running_short = self._unsent < max(self._count, self._ahead // 2)
        if running_short:
            self._on_sent()

    def _try(self, claim: Claim, last_start: float) -> Try | None:
        at, started = time.time(), self._monotonic()
        answer: Answer | None = None

        def once() -> Answer | None:
            nonlocal answer
            if self._monotonic() <= last_start:
                answer = self._answer(claim)
            return answer

        self._within_claim(once)
        return Try(claim, answer, at, self._monotonic() - started) if answer else None

    def _answer(self, claim: Claim) -> Answer:
        try:
            answer = self._deliver(claim.message)
        except Exception as error:
            log.exception("delivery_broke", media_id=claim.message.media_id, seq=claim.message.seq)
            reason = f"The sender itself failed: {type(error).__name__}: {error}"
            answer = Answer(Verdict.RETRY, reason, uncertain=True)
        return replace(answer, detail=_storable(answer.detail), excerpt=_storable(answer.excerpt))


def _storable(text: str) -> str:
    """Without what a database refuses to store (NUL, lone surrogates): no text may keep an outcome from its record."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
