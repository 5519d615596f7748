"""`flask outbox verify --remote`: what the annotations service has, held against what it was told.

Nothing here begins or commits a transaction, and no transaction is open while the other side is asked: media come in
pages, each read before it is compared. Nothing is repaired.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Media, MediaStatus, OutboxStream

Look = Callable[[str, str], Mapping[str, Any] | None]
"""Asks for a media's record on behalf of a user; None where the other side has none."""

PAGE = 500
_OURS = {int(status) for status in MediaStatus}


@dataclass(frozen=True, slots=True)
class Told:
    """What the annotations service must have by now; `status` is None while messages of it still wait."""

    media_id: str
    user_id: str
    media_type: str
    path: str
    status: int | None


def page_of_told(session: Session, after: str) -> Sequence[Told]:
    """The next media by id whose create, if there was one, has arrived."""
    media, stream = Media, OutboxStream
    rows = session.execute(
        select(
            media.id, media.user_id, media.media_type, media.path, media.media_status, stream.acked_seq, stream.last_seq
        )
        .join(stream, stream.media_id == media.id)
        .where(media.id > after, stream.acked_seq > 0)
        .order_by(media.id)
        .limit(PAGE)
    )
    return [
        Told(row.id, row.user_id, row.media_type, row.path, row.media_status if row.acked_seq == row.last_seq else None)
        for row in rows
    ]


def differences(told: Sequence[Told], look: Look) -> Iterator[dict[str, str]]:
    """Every difference as {"mediaId", "problem"}. A status of another service's (4, 5) is none: it came after ours."""
    for expected in told:
        record = look(expected.media_id, expected.user_id)
        problem = "the annotations service does not have it" if record is None else _difference(expected, record)
        if problem:
            yield {"mediaId": expected.media_id, "problem": problem}


def _difference(expected: Told, record: Mapping[str, Any]) -> str | None:
    wanted: dict[str, object] = {"mediaType": expected.media_type, "path": expected.path}
    if expected.status is not None and record.get("mediaStatus") in _OURS:
        wanted["mediaStatus"] = expected.status
    unlike = [
        f"{name} is {record.get(name)!r} there, {value!r} here"
        for name, value in wanted.items()
        if record.get(name) != value
    ]
    return "; ".join(unlike) or None
