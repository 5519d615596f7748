"""What a 409 means, by what a GET of the media item then brings. Nothing here does I/O.

A conflict is not the last word: the key's first request may still be at work there. It counts as delivered where the
record says so, and else only where for long enough nothing at all can be looked into.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from app.annotations.classify import SUCCESS, Rule, SentRequest, classified, redirect_target
from app.annotations.responses import Response, TransportError
from app.outbox.messages import Classification, MessageKind, Outcome, Verdict

CONFLICT = 409
ABSENT_STATUSES = (404, 410)
RETRY_STATUSES = {408: Verdict.RETRY, 425: Verdict.RETRY, 429: Verdict.HOLD, 503: Verdict.UNFIT}
"""Answers to a GET that say nothing of it: it is asked again. Other codes of 500 and above, but 501, are RETRY too."""

OTHER_SERVICES_STATUSES = (4, 5)
"""Statuses that only other services write: past anything that this one has to say."""

_FIELDS = {"id": str, "mediaType": str, "mediaStatus": int}
"""What is read of a record; a field that is not told is no difference."""


class Presence(Enum):
    """What a GET brought to light."""

    PRESENT = auto()
    ABSENT = auto()
    UNKNOWN = auto()  # it is absent, forbidden, or tells nothing of this media item


@dataclass(frozen=True, slots=True)
class RecordLookup:
    """A GET of a media item: `call` names it to people, `found` is what came back."""

    call: str
    media_id: str
    found: Response | TransportError

    @property
    def fields(self) -> dict[str, Any]:
        """What the record tells, proper values only."""
        found = self.found
        record = found.record() if isinstance(found, Response) and found.status in SUCCESS else None
        record = record or {}
        return {name: record[name] for name, kind in _FIELDS.items() if type(record.get(name)) is kind}

    @property
    def retry_verdict(self) -> Verdict | None:
        """The verdict of a look that is to be repeated; None where it told something, if only that it cannot."""
        if isinstance(self.found, TransportError):
            return Verdict.RETRY
        status = self.found.status
        return RETRY_STATUSES.get(status) or (Verdict.RETRY if status >= 500 and status != 501 else None)

    @property
    def presence(self) -> Presence:
        told = self.fields
        if told and told.get("id", self.media_id) == self.media_id:
            return Presence.PRESENT
        absent = isinstance(self.found, Response) and self.found.status in ABSENT_STATUSES
        return Presence.ABSENT if absent else Presence.UNKNOWN

    @property
    def text(self) -> str:
        """The look and its answer, for people."""
        if isinstance(self.found, TransportError):
            return f"{self.call}: {self.found.reason}"
        return f"{self.call} answered {self.found.status}{redirect_target(self.found)}"


def classify_conflict(
    sent: SentRequest, conflict: Response, lookup: RecordLookup, reference: RecordLookup | None
) -> Classification:
    """A 409, by a look at its media item and, where it may come to a conclusion, at one that is known to be there."""
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
    elif lookup.presence is Presence.ABSENT:  # which alone never means delivered
        return replace(found, conclusion=parked)
    if sent.message.kind is MessageKind.STATUS and not sent.outcome_unknown:
        return replace(found, conclusion=parked)
    outcome = Outcome.DUPLICATE if sent.message.kind is MessageKind.CREATE else Outcome.SUPERSEDED
    unseen = replace(parked, detail=f"{parked.detail}: taken for done, unseen")
    return replace(found, conclusion=_as_delivered(unseen, outcome))


def _as_delivered(found: Classification, outcome: Outcome) -> Classification:
    return replace(found, verdict=Verdict.DELIVERED, outcome=outcome, retry_after=None, outcome_unknown=False)
