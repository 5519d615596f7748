"""The threads that send claimed messages. They run no SQL; the dispatcher decides what follows from the results.

A request starts only if its deadline is earlier than the end of its lease. So it has been answered, or has timed out,
before another dispatcher can claim the media item.
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
"""Most claims queued for each thread; half of them keep it busy while results of the other half are recorded."""

MAX_QUEUED_SECONDS = 0.1
"""Longest time that a claim may be queued; with a slow receiver, other processes should claim the messages instead."""

_SMOOTHING = 0.2


class DeliveryWorkers:
    """`count` threads with a queue of claims.

    A queued claim comes back unsent if CONSECUTIVE_THRESHOLD answers in a row were unfit or refused, or if its user is
    held. `on_results` is called in one of the threads when results should be collected: once fewer than half of the
    queued claims are left. `lease` and `deadline` are the seconds of a claim's lease and of one send.
    """

    def __init__(
        self,
        deliver: Deliver,
        policy: RetryPolicy,
        *,
        count: int,
        lease: float,
        deadline: float,
        on_results: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver = deliver
        self._count = count
        self._sendable_for = lease - deadline
        self._on_results = on_results
        self._monotonic = monotonic
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="delivery-worker")
        self._results: deque[SendResult] = deque()
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
        """How many more claims can be submitted."""
        return self._count + self._queue_capacity - len(self._in_flight)

    @property
    def _queue_capacity(self) -> int:
        """How many claims may be queued."""
        return int(self._count * min(MAX_QUEUED_PER_WORKER, MAX_QUEUED_SECONDS / max(self._typical_seconds, 1e-6)))

    @property
    def in_flight(self) -> Sequence[InFlight]:
        """The messages whose results have not been collected."""
        return list(self._in_flight.values())

    @property
    def has_results(self) -> bool:
        """Whether there are results to collect."""
        return bool(self._results)

    def submit(self, claims: Sequence[Claim]) -> None:
        """Queue claims, and forget the failures counted so far: they were decided on before these were claimed."""
        with self._guard:
            self._unsent += len(claims)
            self._failure_streak = 0
            self._held_users.clear()
        for claim in claims:
            self._in_flight[claim.key] = InFlight(claim.message.media_id, claim.message.user_id)
            self._pool.submit(self._send, claim)

    def collect(self) -> list[SendResult]:
        """Return the results since the last call."""
        results = [self._results.popleft() for _ in range(len(self._results))]
        for result in results:
            self._in_flight.pop(result.claim.key, None)
            if result.attempt is not None:
                self._typical_seconds += _SMOOTHING * (result.attempt.duration - self._typical_seconds)
        return results

    def put_back(self, results: Sequence[SendResult]) -> None:
        """Keep results that could not be recorded, for the next `collect`."""
        for result in results:
            self._in_flight[result.claim.key] = InFlight(result.claim.message.media_id, result.claim.message.user_id)
        self._results.extendleft(reversed(results))

    def close(self) -> None:
        """Send no more claims, and wait for the requests under way."""
        self.stopping.set()
        self._pool.shutdown(wait=True)

    def _send(self, claim: Claim) -> None:
        with self._guard:
            self._unsent -= 1
        attempt = None if self._must_skip(claim) else self._attempt(claim)
        self._results.append(SendResult(claim, attempt))
        with self._guard:
            if attempt is not None:
                self._note_verdict(claim, attempt)
            running_short = self._unsent < max(self._count, self._queue_capacity // 2)
        if running_short:
            self._on_results()

    def _must_skip(self, claim: Claim) -> bool:
        return (
            self.stopping.is_set()
            or self._failure_streak >= CONSECUTIVE_THRESHOLD
            or claim.message.user_id in self._held_users
        )

    def _note_verdict(self, claim: Claim, attempt: Attempt) -> None:
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

        def send_once() -> Classification | None:
            nonlocal found, sends
            if self._monotonic() <= last_start and (sends == 0 or not self._must_skip(claim)):
                sends += 1
                found = self._classified(claim)
            return found

        self._within_claim(send_once)
        return Attempt(found, at, self._monotonic() - started, sends) if found else None

    def _classified(self, claim: Claim) -> Classification:
        try:
            found = self._deliver(claim.message)
        except Exception as error:
            log.exception("delivery_failed", media_id=claim.message.media_id, seq=claim.message.seq)
            reason = f"Sending failed with an unexpected error: {type(error).__name__}: {error}"
            found = Classification(Verdict.RETRY, reason, outcome_unknown=True)
        return _storable(found)


def _storable(found: Classification) -> Classification:
    """Replace characters that no database stores: NUL and lone surrogates."""
    if found.conclusion is not None:
        found = replace(found, conclusion=_storable(found.conclusion))
    return replace(found, detail=_without_unstorable(found.detail), excerpt=_without_unstorable(found.excerpt))


def _without_unstorable(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
