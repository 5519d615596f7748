"""Classifies a 409 by a GET of the media item, its lookup. No I/O.

A conflict is not final at first, because an earlier request with the same idempotency key may still be running. It
counts as delivered if the record shows it, or if records cannot be read at all for long enough.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from app.annotations.classify import SUCCESS, Rule, SentRequest, classified, redirect_target
from app.http_exchange.responses import Response, TransportError
from app.outbox.messages import Classification, MessageKind, Outcome, Verdict

CONFLICT = 409
ABSENT_STATUSES = (404, 410)
RETRY_STATUSES = {408: Verdict.RETRY, 425: Verdict.RETRY, 429: Verdict.HOLD, 503: Verdict.UNFIT}
"""Answers to a lookup that must be repeated, with their verdicts. Other 5xx except 501 are RETRY too."""

OTHER_SERVICES_STATUSES = (4, 5)
"""Statuses that only other services write; they follow every status of this service."""

_FIELDS = {"id": str, "mediaType": str, "mediaStatus": int}
"""The fields that are read from a record; a missing field is no difference."""


class Presence(Enum):
    """Whether the annotations service has the media item."""

    PRESENT = auto()
    ABSENT = auto()
    UNKNOWN = auto()  # the GET is missing or forbidden, or its answer is not about the media item


@dataclass(frozen=True, slots=True)
class RecordLookup:
    """A GET of a media item: `call` is its method and path, `found` the answer or the error."""

    call: str
    media_id: str
    found: Response | TransportError

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the record that have the right type."""
        found = self.found
        record = found.record() if isinstance(found, Response) and found.status in SUCCESS else None
        record = record or {}
        return {name: record[name] for name, kind in _FIELDS.items() if type(record.get(name)) is kind}

    @property
    def retry_verdict(self) -> Verdict | None:
        """The verdict of a lookup that must be repeated; None if its answer can be used."""
        if isinstance(self.found, TransportError):
            return Verdict.RETRY
        status = self.found.status
        return RETRY_STATUSES.get(status) or (Verdict.RETRY if status >= 500 and status != 501 else None)

    @property
    def presence(self) -> Presence:
        """Whether the record shows that the service has the media item."""
        fields = self.fields
        if fields and fields.get("id", self.media_id) == self.media_id:
            return Presence.PRESENT
        absent = isinstance(self.found, Response) and self.found.status in ABSENT_STATUSES
        return Presence.ABSENT if absent else Presence.UNKNOWN

    @property
    def text(self) -> str:
        """The lookup and its answer, for people."""
        if isinstance(self.found, TransportError):
            return f"{self.call}: {self.found.reason}"
        return f"{self.call} answered {self.found.status}{redirect_target(self.found)}"


def classify_conflict(
    sent: SentRequest, conflict: Response, lookup: RecordLookup, reference: RecordLookup | None
) -> Classification:
    """Classify a 409 by a lookup of its media item and, before a conclusion, of a reference item known to exist."""
    detail = f"{sent.call} answered {CONFLICT}; {lookup.text}"
    if lookup.retry_verdict is not None:
        answer = lookup.found if isinstance(lookup.found, Response) else conflict
        return classified(sent, Rule(lookup.retry_verdict), detail, answer, CONFLICT)
    there = lookup.presence is Presence.PRESENT
    if there and sent.message.kind is MessageKind.CREATE:
        return _created(sent, conflict, lookup, detail)
    if there and "mediaStatus" in lookup.fields:
        return _at_status(sent, conflict, lookup, detail)
    return _unconfirmed(sent, conflict, lookup, reference, detail)


def _created(sent: SentRequest, conflict: Response, lookup: RecordLookup, detail: str) -> Classification:
    ours, theirs = sent.message.payload["mediaType"], lookup.fields.get("mediaType")
    if theirs is None or theirs == ours:
        return _as_delivered(
            classified(sent, Rule(Verdict.RETRY), f"{detail}: it is there", conflict), Outcome.DUPLICATE
        )
    return classified(sent, Rule(Verdict.PARK), f"{detail}: mediaType is {theirs} there, {ours} here", conflict)


def _at_status(sent: SentRequest, conflict: Response, lookup: RecordLookup, detail: str) -> Classification:
    ours, theirs = sent.message.payload["mediaStatus"], lookup.fields["mediaStatus"]
    detail = f"{detail}: mediaStatus is {theirs} there, {ours} here"
    found = classified(sent, Rule(Verdict.RETRY_LIMITED), detail, conflict)
    return _as_delivered(found, Outcome.SUPERSEDED) if theirs == ours or theirs in OTHER_SERVICES_STATUSES else found


def _unconfirmed(
    sent: SentRequest, conflict: Response, lookup: RecordLookup, reference: RecordLookup | None, detail: str
) -> Classification:
    found = classified(sent, Rule(Verdict.RETRY_LIMITED), detail, conflict)
    parked = replace(found, verdict=Verdict.PARK, retry_after=None)
    if reference is not None:
        parked = replace(parked, detail=f"{detail}; {reference.text}")
        if reference.retry_verdict is not None:
            return replace(found, conclusion=replace(parked, verdict=Verdict.RETRY))
        if reference.presence is Presence.PRESENT:
            return replace(found, conclusion=parked)
    elif lookup.presence is Presence.ABSENT:  # a 404 alone never means delivered
        return replace(found, conclusion=parked)
    if sent.message.kind is MessageKind.STATUS and not sent.outcome_unknown:
        return replace(found, conclusion=parked)
    outcome = Outcome.DUPLICATE if sent.message.kind is MessageKind.CREATE else Outcome.SUPERSEDED
    unconfirmed = replace(parked, detail=f"{parked.detail}: counted as delivered, unseen")
    return replace(found, conclusion=_as_delivered(unconfirmed, outcome))


def _as_delivered(found: Classification, outcome: Outcome) -> Classification:
    return replace(found, verdict=Verdict.DELIVERED, outcome=outcome, retry_after=None, outcome_unknown=False)
