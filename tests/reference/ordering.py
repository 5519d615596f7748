"""Whether the promise was kept, judged from the receiver's request log alone.

The promise: every message of one media in order, the next only after the one before was accepted, each under one
Idempotency-Key that is used for nothing else. Sending again is allowed, as often as the sender likes. Pure.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.demo.rules import TRANSITIONS

Entry = Mapping[str, Any]
Skipped = Collection[tuple[str, int]]

_CONFLICT = 409
_ACCEPTED = range(200, 300)


def check_log(entries: Sequence[Entry], *, skipped: Skipped = (), forgotten: Collection[str] = ()) -> list[str]:
    """Return each violation of the promise in a whole request log, [] for a clean one.

    `entries` are as from `GET /_log`. `skipped` names messages, as (media id, seq), that a person dropped; `forgotten`
    media whose records the receiver lost, so that they were created again. In a later epoch numbers begin anew.
    A number may also be missing among the applied ones where the receiver had answered 409 for what was so already:
    a create of a media that exists, a status that it has.
    """
    writes = [entry for entry in sorted(entries, key=lambda entry: entry["index"]) if _is_write(entry)]
    violations = [*_keys_used_twice(writes), *_messages_with_two_keys(writes)]
    for media_id in dict.fromkeys(entry["mediaId"] for entry in writes if entry["mediaId"] is not None):
        media = _Media(media_id, frozenset(seq for media, seq in skipped if media == media_id))
        media.may_be_created_again = media_id in forgotten
        for entry in writes:
            if entry["mediaId"] == media_id:
                violations += media.take(entry)
    return violations


@dataclass(slots=True)
class _Media:
    """One media as the receiver saw it so far."""

    media_id: str
    passed: frozenset[int]  # numbers that need not be applied
    create_key: str | None = None
    created_after: int | None = None
    status: Any = None
    may_be_created_again: bool = False
    epoch: int = 1
    last_seq: int = 0
    last_answered_after: int = field(default=0)

    def take(self, entry: Entry) -> Iterator[str]:
        is_create = entry["method"] == "POST"
        if not is_create and (self.created_after is None or entry["index"] <= self.created_after):
            yield self._violation(entry, "a status before its create was accepted")
        if entry["applied"]:
            yield from self._order(entry)
            yield from self._second_create(entry) if is_create else self._transition(entry)
            self.status = _status_in(entry)
        elif entry["status"] == _CONFLICT and (is_create or _status_in(entry) == self.status):
            self.passed |= {entry["seq"]}
        if is_create and self.created_after is None and _settles_create(entry):
            self.created_after = _answered_after(entry)

    def _order(self, entry: Entry) -> Iterator[str]:
        seq = entry["seq"]
        if seq is None:  # brought by somebody else, who numbers nothing
            return
        epoch = entry.get("epoch", 1)
        if epoch < self.epoch:
            yield self._violation(entry, f"epoch {epoch} applied after epoch {self.epoch}")
            return
        if epoch > self.epoch:
            self.epoch, self.last_seq = epoch, seq - 1
        if seq <= self.last_seq:
            yield self._violation(entry, f"seq {seq} applied after seq {self.last_seq}")
            return
        missing = [number for number in range(self.last_seq + 1, seq) if number not in self.passed]
        if missing:
            yield self._violation(entry, f"seq {seq} applied after seq {self.last_seq}, without {missing}")
        elif entry["index"] <= self.last_answered_after:
            yield self._violation(entry, f"seq {seq} sent before seq {self.last_seq} was answered")
        self.last_seq = seq
        self.last_answered_after = _answered_after(entry)

    def _second_create(self, entry: Entry) -> Iterator[str]:
        key = entry["idempotencyKey"]
        if self.create_key is not None and not self.may_be_created_again:
            yield self._violation(entry, f"a second create applied, under key {key} after key {self.create_key}")
        self.create_key = key

    def _transition(self, entry: Entry) -> Iterator[str]:
        change = (self.status, _status_in(entry))
        if self.status is not None and change not in TRANSITIONS:
            yield self._violation(entry, f"status {change[0]} became {change[1]}, which is not allowed")

    def _violation(self, entry: Entry, what: str) -> str:
        return f"entry {entry['index']}, media {self.media_id}: {what}"


def _is_write(entry: Entry) -> bool:
    method: str = entry["method"]
    path: str = entry["path"]
    if method == "POST":
        return path == "/api/media"
    return method == "PUT" and path.startswith("/api/media/") and path.endswith("/status")


def _keys_used_twice(writes: Sequence[Entry]) -> Iterator[str]:
    first: dict[str, Entry] = {}
    for entry in writes:
        key = entry["idempotencyKey"]
        if not isinstance(entry["body"], Mapping):
            continue  # its sender died in the middle of it: no whole request arrived
        if key is not None and _request(first.setdefault(key.lower(), entry)) != _request(entry):
            yield f"entry {entry['index']}: key {key} was used for another request, entry {first[key.lower()]['index']}"


def _messages_with_two_keys(writes: Sequence[Entry]) -> Iterator[str]:
    first: dict[tuple[str, int, int], Entry] = {}
    for entry in writes:
        if entry["mediaId"] is None or entry["seq"] is None:
            continue
        original = first.setdefault((entry["mediaId"], entry.get("epoch", 1), entry["seq"]), entry)
        if original["idempotencyKey"] != entry["idempotencyKey"]:
            yield (
                f"entry {entry['index']}, media {entry['mediaId']}: seq {entry['seq']} sent under another key"
                f" than in entry {original['index']}"
            )


def _request(entry: Entry) -> tuple[Any, ...]:
    return entry["path"], entry["seq"], json.dumps(entry["body"], sort_keys=True)


def _status_in(entry: Entry) -> Any:
    return entry["body"].get("mediaStatus") if isinstance(entry["body"], Mapping) else None


def _settles_create(entry: Entry) -> bool:
    status: int | None = entry["status"]
    return bool(entry["applied"]) or status == _CONFLICT or status in _ACCEPTED


def _answered_after(entry: Entry) -> int:
    """The index of the last request that had arrived when this one was decided; a log without it: its own."""
    answered_after = entry.get("answeredAfter")
    return int(entry["index"] if answered_after is None else answered_after)
