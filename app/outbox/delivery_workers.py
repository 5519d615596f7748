"""The threads that send claimed messages, and nothing else: no SQL here, and no decision but what is held back.

No send starts with less lease left than its own deadline, so that what a send does to the other side has always been
heard of, or has timed out, before another dispatcher may take the media item.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import structlog

from app.outbox.circuit import CONSECUTIVE_THRESHOLD, InFlight
from app.outbox.messages import Attempt, Claim, Classification, Deliver, SendResult, Verdict
from app.outbox.retry_policy import RetryPolicy

log = structlog.get_logger()

MAX_QUEUED_PER_WORKER = 25
"""Claims waiting for each thread at most: half of them last while the outcomes of the other half are recorded."""

MAX_QUEUED_SECONDS = 0.1
"""How long a claim may wait for its thread: with a slow receiver, claims are better left to other processes."""

_SMOOTHING = 0.2


class DeliveryWorkers:
    """A fixed number of threads, with some claims waiting for each.

    Claims that wait are given back unsent once the answers before them say that the endpoint is unfit or refuses
    everything, or that their user is held: what that means is decided where it is recorded. `on_returned` is called in
    one of the threads when what came back should be collected: at once where the claims that wait run short, later
    where recording more of them together costs nobody time.
    """

    def __init__(
        self,
        deliver: Deliver,
        policy: RetryPolicy,
        *,
        count: int,
        lease: float,
        deadline: float,
        on_returned: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver = deliver
        self._count = count
        self._sendable_for = lease - deadline
        self._on_returned = on_returned
        self._monotonic = monotonic
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="delivery-worker")
        self._returned: deque[SendResult] = deque()
        self._in_flight: dict[tuple[str, int], InFlight] = {}
        self._unsent = 0
        self._typical_seconds = MAX_QUEUED_SECONDS
        self._guard = threading.Lock()
        self._failure_streak = 0
        self._held_users: set[str] = set()
        self.stopping = threading.Event()
        self._within_claim = policy.within_claim(self.stopping)

    @property
    def free(self) -> int:
        """How many more claims can be taken."""
        return self._count + self._queue_capacity - len(self._in_flight)

    @property
    def _queue_capacity(self) -> int:
        """How many claims may wait."""
        return int(self._count * min(MAX_QUEUED_PER_WORKER, MAX_QUEUED_SECONDS / max(self._typical_seconds, 1e-6)))

    @property
    def in_flight(self) -> Sequence[InFlight]:
        """Whose claims have not been collected yet."""
        return list(self._in_flight.values())

    @property
    def has_results(self) -> bool:
        return bool(self._returned)

    def submit(self, claims: Sequence[Claim]) -> None:
        """Send claims that were taken after all that came back had been decided: nothing before them counts."""
        with self._guard:
            self._unsent += len(claims)
            self._failure_streak = 0
            self._held_users.clear()
        for claim in claims:
            self._in_flight[claim.key] = InFlight(claim.message.media_id, claim.message.user_id)
            self._pool.submit(self._send, claim)

    def collect(self) -> list[SendResult]:
        """What has come back since the last call."""
        returned = [self._returned.popleft() for _ in range(len(self._returned))]
        for one in returned:
            self._in_flight.pop(one.claim.key, None)
            if one.attempt is not None:
                self._typical_seconds += _SMOOTHING * (one.attempt.duration - self._typical_seconds)
        return returned

    def put_back(self, returned: Sequence[SendResult]) -> None:
        """Take back what could not be recorded, to be collected again."""
        for one in returned:
            self._in_flight[one.claim.key] = InFlight(one.claim.message.media_id, one.claim.message.user_id)
        self._returned.extendleft(reversed(returned))

    def close(self) -> None:
        """Start nothing more, and wait for what is under way."""
        self.stopping.set()
        self._pool.shutdown(wait=True)

    def _send(self, claim: Claim) -> None:
        with self._guard:
            self._unsent -= 1
        attempt = None if self._must_skip(claim) else self._attempt(claim)
        self._returned.append(SendResult(claim, attempt))
        with self._guard:
            if attempt is not None:
                self._note(claim, attempt)
            running_short = self._unsent < max(self._count, self._queue_capacity // 2)
        if running_short:
            self._on_returned()

    def _must_skip(self, claim: Claim) -> bool:
        return (
            self.stopping.is_set()
            or self._failure_streak >= CONSECUTIVE_THRESHOLD
            or claim.message.user_id in self._held_users
        )

    def _note(self, claim: Claim, attempt: Attempt) -> None:
        match attempt.classification.verdict:
            case Verdict.UNFIT | Verdict.REFUSED:
                self._failure_streak += attempt.sends
            case Verdict.HOLD:
                self._held_users.add(claim.message.user_id)
            case Verdict.DELIVERED:
                self._failure_streak = 0

    def _attempt(self, claim: Claim) -> Attempt | None:
        last_start = claim.leased_at + self._sendable_for
        at, started = time.time(), self._monotonic()
        found: Classification | None = None
        sends = 0

        def once() -> Classification | None:
            nonlocal found, sends
            if self._monotonic() <= last_start and (sends == 0 or not self._must_skip(claim)):
                sends += 1
                found = self._classified(claim)
            return found

        self._within_claim(once)
        return Attempt(found, at, self._monotonic() - started, sends) if found else None

    def _classified(self, claim: Claim) -> Classification:
        try:
            found = self._deliver(claim.message)
        except Exception as error:
            log.exception("delivery_broke", media_id=claim.message.media_id, seq=claim.message.seq)
            reason = f"The sender itself failed: {type(error).__name__}: {error}"
            found = Classification(Verdict.RETRY, reason, outcome_unknown=True)
        return _storable(found)


def _storable(found: Classification) -> Classification:
    """Without what no database stores (NUL, lone surrogates): no text may keep an outcome from its record."""
    if found.conclusion is not None:
        found = replace(found, conclusion=_storable(found.conclusion))
    return replace(found, detail=_without_unstorable(found.detail), excerpt=_without_unstorable(found.excerpt))


def _without_unstorable(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
