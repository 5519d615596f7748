"""The values of the outbox: messages, claims, attempts and their classification. Independent of HTTP and database."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class MessageKind(StrEnum):
    """What a message reports: a new media item, or a status."""

    CREATE = "create"
    STATUS = "status"


class Verdict(StrEnum):
    """What an answer means for its message, its user and the endpoint."""

    DELIVERED = "delivered"  # accepted: send the next message of the media item
    RETRY = "retry"  # a transient failure or an unknown outcome: retry after a backoff, without limit
    RETRY_LIMITED = "retry_limited"  # not final yet: retry for a limited time, then apply the conclusion
    REFUSED = "refused"  # this message was refused: park it if messages of others are delivered
    PARK = "park"  # the other side's record contradicts the message: park it
    HOLD = "hold"  # the user was refused or throttled: suspend the user's messages
    UNFIT = "unfit"  # the endpoint does not work: count it towards opening the circuit


class Outcome(StrEnum):
    """Why a message no longer waits."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # the other side already had the media item
    SUPERSEDED = "superseded"  # the other side already had that status or a later one
    SKIPPED = "skipped"  # a person dropped it


@dataclass(frozen=True, slots=True)
class Reference:
    """A media item that the other side is known to have, to check whether its GET works at all."""

    media_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is sent, with the same payload and idempotency key at every attempt.

    `changed_at` is when the reported change was committed, in seconds since 1970.
    """

    media_id: str
    seq: int  # 1, 2, 3… per media item
    kind: MessageKind
    payload: dict[str, Any]
    idempotency_key: str
    user_id: str  # the media item's user, and the identity in a minted token
    request_id: str | None  # the id of the request that caused it, passed on for tracing
    outcome_unknown: bool = False  # an earlier attempt may have been accepted
    epoch: int = 1  # the epoch of the database that numbered it
    changed_at: float = 0.0
    reference: Reference | None = None  # set if the answer to this attempt may be final


@dataclass(frozen=True, slots=True)
class Classification:
    """The meaning of one attempt's answer, or of its absence.

    `status` is the HTTP status, None without an answer; `retry_after` is in seconds, None if the answer names no time.
    `unsent` says that no byte of the request arrived, so the same attempt may send it again. `outcome_unknown` says
    that the other side may have acted on the request although no answer came. `conclusion` is what RETRY_LIMITED
    becomes once it has lasted long enough; None stands for PARK.
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
    """A message leased to this dispatcher.

    `epoch` fences the writes of its result. `attempts` counts all attempts so far, `failures` those that lengthen the
    backoff, and `counted_attempts` those limited in number, the first of which was answered at `refused_since`.
    `is_probe` marks the probe of an open circuit, `probes_user` the probe of a held user. `leased_at` is on the
    monotonic clock.
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
        """The message's media id and sequence number."""
        return self.message.media_id, self.message.seq

    @property
    def as_row(self) -> dict[str, Any]:
        """The claim's key and epoch as a row of a ListStatements parameter."""
        return {"media_id": self.message.media_id, "lease_epoch": self.epoch, "seq": self.message.seq}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: it began `at` seconds since 1970, took `duration` seconds and sent the request `sends` times."""

    classification: Classification
    at: float
    duration: float
    sends: int = 1


@dataclass(frozen=True, slots=True)
class SendResult:
    """A claim with its attempt; `attempt` is None if nothing was sent."""

    claim: Claim
    attempt: Attempt | None
