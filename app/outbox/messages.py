"""What the outbox hands out and what it is told in return. Nothing here knows of HTTP or of a database."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class MessageKind(StrEnum):
    """What a message tells the annotations service."""

    CREATE = "create"
    STATUS = "status"


class Verdict(StrEnum):
    """What an answer means for its message, for its user and for the endpoint."""

    DELIVERED = "delivered"  # accepted: the next message of the media item may follow
    RETRY = "retry"  # nobody's fault, or of unknown outcome: again after a backoff, however often
    RETRY_LIMITED = "retry_limited"  # not the last word yet: again, for a limited time
    REFUSED = "refused"  # refused; says something of this media item only where others get through
    PARK = "park"  # contradicted by what the other side has: this media item waits for a person
    HOLD = "hold"  # this user is refused, or asked to slow down: nothing of theirs is sent for a while
    UNFIT = "unfit"  # the endpoint itself is unfit: the circuit breaker counts it


class Outcome(StrEnum):
    """How a message that is no longer waiting came to its end."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # the media item existed there already
    SUPERSEDED = "superseded"  # the other side was already at, or past, that status
    SKIPPED = "skipped"  # dropped by a person


@dataclass(frozen=True, slots=True)
class Reference:
    """A media item that the other side has accepted messages of: whoever can be asked for anything has this one."""

    media_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it is sent: the same content and key at every attempt.

    `changed_at` is when the change that it reports was committed, in seconds since 1970.
    """

    media_id: str
    seq: int  # 1, 2, 3… per media item
    kind: MessageKind
    payload: dict[str, Any]
    idempotency_key: str
    user_id: str  # whose media item it is: the identity in a minted token
    request_id: str | None  # of the call that caused it, passed on for tracing
    outcome_unknown: bool = False  # an earlier attempt may have been accepted
    epoch: int = 1  # of the database that numbered it
    changed_at: float = 0.0
    reference: Reference | None = None  # given once this attempt may be the last one before a conclusion


@dataclass(frozen=True, slots=True)
class Classification:
    """What came back from one attempt, classified.

    `status` is the HTTP status, None where there was no answer; `retry_after` is in seconds, None where the other side
    did not say.
    `unsent` says that no byte of the request can have arrived: only then is it sent again within the same attempt.
    `outcome_unknown` says that the other side may have acted on the request without our hearing of it.
    `conclusion` belongs to RETRY_LIMITED: what it means once it has gone on for long enough, PARK where it is None.
    """

    verdict: Verdict
    detail: str
    status: int | None = None
    outcome: Outcome = Outcome.ACCEPTED
    retry_after: float | None = None
    unsent: bool = False
    outcome_unknown: bool = False
    excerpt: str = ""
    conclusion: "Classification | None" = None


Deliver = Callable[[Message], Classification]


@dataclass(frozen=True, slots=True)
class Claim:
    """A message leased to this dispatcher, with what fences its outcome and what its next wait is computed from.

    `attempts` counts all attempts of the message so far, `failures` those that its backoff grows by, and
    `counted_attempts` those that may not go on for ever, which began at `refused_since`. `is_probe` is set for the
    probe of an open circuit, `probes_user` for that of a held user. `leased_at` is on the monotonic clock.
    """

    message: Message
    epoch: int
    attempts: int = 0
    failures: int = 0
    counted_attempts: int = 0
    refused_since: float | None = None
    is_probe: bool = False
    probes_user: bool = False
    leased_at: float = 0.0

    @property
    def key(self) -> tuple[str, int]:
        """What tells its message from every other."""
        return self.message.media_id, self.message.seq

    @property
    def as_row(self) -> dict[str, Any]:
        """What fences its outcome, for a statement about many claims."""
        return {"media_id": self.message.media_id, "lease_epoch": self.epoch, "seq": self.message.seq}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as it went: `at` is seconds since 1970, `duration` seconds, `sends` how often it was sent."""

    classification: Classification
    at: float
    duration: float
    sends: int = 1


@dataclass(frozen=True, slots=True)
class SendResult:
    """A claim that came back: `attempt` is None where nothing was sent."""

    claim: Claim
    attempt: Attempt | None
