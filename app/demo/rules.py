"""What the reference annotations service demands of a message, to the letter of the contract.

It is strict so that a sender that drifts from the contract is refused by name here, in a test or in the demo,
and not by somebody else's service later. Pure: no Flask, no database.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.media.hashing import MEDIA_ID

NEW, PROCESSING, PROCESSED, ERROR = 1, 2, 3, 6
TRANSITIONS = frozenset(
    {
        (NEW, PROCESSING),
        (PROCESSING, PROCESSED),
        (PROCESSING, ERROR),
        (PROCESSED, PROCESSING),
        (ERROR, PROCESSING),
    }
)
MAX_NAME_CHARACTERS = 255

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SEQUENCE_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_OVERRIDES = {"\u202d", "\u202e"}


class Refusal(Exception):
    """The request is answered with a problem instead: `status`, a `kind` for its type, the wrong `field` if one is."""

    def __init__(self, status: int, kind: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.field = field


@dataclass(frozen=True, slots=True)
class Demand:
    """What one field of a body must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any(unicodedata.category(character) in {"Cc", "Cs"} for character in value)


def _is_display_name(value: Any) -> bool:
    return (
        _is_text(value)
        and len(value) <= MAX_NAME_CHARACTERS
        and "/" not in value
        and not _OVERRIDES & set(value)
        and unicodedata.is_normalized("NFC", value)
    )


def _one_of(*allowed: Any) -> Callable[[Any], bool]:
    # By type too, because True == 1 and 1.0 == 1.
    return lambda value: any(type(value) is type(one) and value == one for one in allowed)


CREATE_FIELDS: Mapping[str, Demand] = {
    "id": Demand("16 lowercase hex digits", lambda value: isinstance(value, str) and bool(MEDIA_ID.fullmatch(value))),
    "name": Demand(
        f"a file name in NFC of at most {MAX_NAME_CHARACTERS} characters, without '/', control or override characters",
        _is_display_name,
    ),
    "path": Demand("an absolute path", lambda value: _is_text(value) and value.startswith("/")),
    "mediaType": Demand("'Video' or 'Image'", _one_of("Video", "Image")),
    "mediaStatus": Demand("the number 1", _one_of(NEW)),
    "userId": Demand("a non-empty text", lambda value: _is_text(value) and value != ""),
}
STATUS_FIELDS: Mapping[str, Demand] = {
    "mediaStatus": Demand("2, 3 or 6", _one_of(PROCESSING, PROCESSED, ERROR)),
}


def parse_json(body: bytes) -> Any:
    """Parse a JSON text in UTF-8. Raises ValueError for anything else, also for one nested too deeply."""
    try:
        return json.loads(body.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def message_body(media_type: str, body: bytes, fields: Mapping[str, Demand]) -> dict[str, Any]:
    """Return the body's object if it has exactly these fields, each as demanded. Raises Refusal (415, 400, 422)."""
    if media_type != "application/json":
        raise Refusal(415, "unsupported-media-type", "Content-Type must be application/json.")
    try:
        document = parse_json(body)
    except ValueError as error:
        raise Refusal(400, "malformed-json", f"The body is not JSON in UTF-8: {error}.") from error
    if not isinstance(document, dict):
        raise Refusal(422, "invalid-body", "The body must be a JSON object.")
    for field in sorted(document.keys() - fields.keys()):
        raise Refusal(422, "invalid-body", f"Unknown field {field!r}.", field)
    for field, demand in fields.items():
        if field not in document:
            raise Refusal(422, "invalid-body", f"Field {field!r} is missing.", field)
        if not demand.holds(document[field]):
            raise Refusal(422, "invalid-body", f"Field {field!r} must be {demand.words}.", field)
    return document


def idempotency_key(value: str | None) -> str:
    """Return the header's UUID in lower case. Raises Refusal (400) where it is missing or another text."""
    key = (value or "").lower()
    if not _UUID.fullmatch(key):
        raise Refusal(400, "invalid-idempotency-key", "Idempotency-Key must be a UUID.")
    return key


def sequence_number(value: str | None, header: str = "X-Outbox-Seq") -> int:
    """Return the header's number, 1 or more. Raises Refusal (400) where it is missing or another text."""
    if not _SEQUENCE_NUMBER.fullmatch(value or ""):
        raise Refusal(400, "invalid-sequence-number", f"{header} must be a whole number from 1 on.")
    return int(value or "")
