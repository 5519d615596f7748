"""What a 409 means, by what a GET of the media item then brings. Nothing here does I/O.

A conflict is not the last word: the key's first request may still be at work there. It counts as delivered where the
record says so, and else only where for long enough nothing at all can be looked into.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from app.annotations.classify import SUCCESS, Rule, Sent, classified, elsewhere
from app.http_exchange.responses import Response, TransportError
from app.outbox.messages import Classification, Kind, Outcome, Verdict

CONFLICT = 409
NOT_THERE = (404, 410)
NOT_NOW = {408: Verdict.RETRY, 425: Verdict.RETRY, 429: Verdict.HOLD, 503: Verdict.UNFIT}
"""Answers to a GET that say nothing of it: it is asked again. Other codes of 500 and above, but 501, are RETRY too."""

STATUSES_OF_OTHERS = (4, 5)
"""Statuses that only other services write: past anything that this one has to say."""

_FIELDS = {"id": str, "mediaType": str, "mediaStatus": int}
"""What is read of a record; a field that is not told is no difference."""


class Sight(Enum):
    """What a GET brought to light."""

    THERE = auto()
    NOT_THERE = auto()
    NOTHING = auto()  # it is absent, forbidden, or tells nothing of this media item


@dataclass(frozen=True, slots=True)
class Look:
    """A GET of a media item: `call` names it to people, `found` is what came back."""

    call: str
    media_id: str
    found: Response | TransportError

    @property
    def told(self) -> dict[str, Any]:
        """What the record tells, proper values only."""
        found = self.found
        record = found.record() if isinstance(found, Response) and found.status in SUCCESS else None
        record = record or {}
        return {name: record[name] for name, kind in _FIELDS.items() if type(record.get(name)) is kind}

    @property
    def not_now(self) -> Verdict | None:
        """The verdict of a look that is to be repeated; None where it told something, if only that it cannot."""
        if isinstance(self.found, TransportError):
            return Verdict.RETRY
        status = self.found.status
        return NOT_NOW.get(status) or (Verdict.RETRY if status >= 500 and status != 501 else None)

    @property
    def sight(self) -> Sight:
        told = self.told
        if told and told.get("id", self.media_id) == self.media_id:
            return Sight.THERE
        absent = isinstance(self.found, Response) and self.found.status in NOT_THERE
        return Sight.NOT_THERE if absent else Sight.NOTHING

    @property
    def text(self) -> str:
        """The look and its answer, for people."""
        if isinstance(self.found, TransportError):
            return f"{self.call}: {self.found.reason}"
        return f"{self.call} answered {self.found.status}{elsewhere(self.found)}"


def classify_conflict(sent: Sent, conflict: Response, look: Look, reference: Look | None) -> Classification:
    """A 409, by a look at its media item and, where it may come to a conclusion, at one that is known to be there."""
    detail = f"{sent.call} answered {CONFLICT}; {look.text}"
    if look.not_now is not None:
        answer = look.found if isinstance(look.found, Response) else conflict
        return classified(sent, Rule(look.not_now), detail, answer, CONFLICT)
    there = look.sight is Sight.THERE
    if there and sent.message.kind is Kind.CREATE:
        return _created(sent, conflict, look, detail)
    if there and "mediaStatus" in look.told:
        return _at_status(sent, conflict, look, detail)
    return _unconfirmed(sent, conflict, look, reference, detail)


def _created(sent: Sent, conflict: Response, look: Look, detail: str) -> Classification:
    ours, theirs = sent.message.payload["mediaType"], look.told.get("mediaType")
    if theirs is None or theirs == ours:
        return _done(classified(sent, Rule(Verdict.RETRY), f"{detail}: it is there", conflict), Outcome.DUPLICATE)
    return classified(sent, Rule(Verdict.PARK), f"{detail}: mediaType is {theirs} there, {ours} here", conflict)


def _at_status(sent: Sent, conflict: Response, look: Look, detail: str) -> Classification:
    ours, theirs = sent.message.payload["mediaStatus"], look.told["mediaStatus"]
    detail = f"{detail}: mediaStatus is {theirs} there, {ours} here"
    found = classified(sent, Rule(Verdict.RETRY_LIMITED), detail, conflict)
    return _done(found, Outcome.SUPERSEDED) if theirs == ours or theirs in STATUSES_OF_OTHERS else found


def _unconfirmed(sent: Sent, conflict: Response, look: Look, reference: Look | None, detail: str) -> Classification:
    found = classified(sent, Rule(Verdict.RETRY_LIMITED), detail, conflict)
    parked = replace(found, verdict=Verdict.PARK, retry_after=None)
    if reference is not None:
        parked = replace(parked, detail=f"{detail}; {reference.text}")
        if reference.not_now is not None:
            return replace(found, conclusion=replace(parked, verdict=Verdict.RETRY))
        if reference.sight is Sight.THERE:
            return replace(found, conclusion=parked)
    elif look.sight is Sight.NOT_THERE:  # which alone never means delivered
        return replace(found, conclusion=parked)
    if sent.message.kind is Kind.STATUS and not sent.outcome_unknown:
        return replace(found, conclusion=parked)
    outcome = Outcome.DUPLICATE if sent.message.kind is Kind.CREATE else Outcome.SUPERSEDED
    unseen = replace(parked, detail=f"{parked.detail}: taken for done, unseen")
    return replace(found, conclusion=_done(unseen, outcome))


def _done(found: Classification, outcome: Outcome) -> Classification:
    return replace(found, verdict=Verdict.DELIVERED, outcome=outcome, retry_after=None, outcome_unknown=False)
