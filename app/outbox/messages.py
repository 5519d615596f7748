"""What the outbox hands out and what it is told in return. Nothing here knows of HTTP or of a database."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a message tells the annotations service."""

    CREATE = "create"
    STATUS = "status"


class Verdict(StrEnum):
    """What an answer means for its message and for the ones behind it."""

    DELIVERED = "delivered"  # accepted: the next message of the media may follow
    RETRY = "retry"  # nobody's fault, or of unknown fate: again after a backoff
    PARK = "park"  # a definite refusal: this media waits for a person
    CLOSE_GATE = "close_gate"  # the endpoint itself is unfit: all media wait, one probe at a time


class Outcome(StrEnum):
    """How a message that is no longer waiting came to its end."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # the media existed there already
    SUPERSEDED = "superseded"  # the other side was already at, or past, that status
    SKIPPED = "skipped"  # dropped by a person


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it is sent: the same content and key at every try.

    `changed_at` is when the change that it reports was committed, in seconds since 1970.
    """

    media_id: str
    seq: int  # 1, 2, 3… per media
    kind: Kind
    payload: dict[str, Any]
    idempotency_key: str
    user_id: str  # whose media it is: the identity in a minted token
    request_id: str | None  # of the call that caused it, passed on for tracing
    uncertain: bool = False  # an earlier send of it may have been accepted
    epoch: int = 1  # of the database that numbered it
    changed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The annotations service's answer to one try, judged.

    `status` is the HTTP status, None where there was no answer; `retry_after` is in seconds.
    `unsent` says that no byte of the request can have arrived: only then is a try repeated at once.
    `uncertain` says that the other side may have acted on the request without our hearing of it.
    `max_tries` bounds RETRY: after that many counted tries the media is parked.
    """

    verdict: Verdict
    detail: str
    status: int | None = None
    outcome: Outcome = Outcome.ACCEPTED
    retry_after: float | None = None
    unsent: bool = False
    uncertain: bool = False
    max_tries: int | None = None
    excerpt: str = ""


Deliver = Callable[[Message], Answer]
