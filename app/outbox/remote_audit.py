"""Compares the annotations service's records with what was delivered, for `verify --remote` and `resend`.

A field that a record lacks is no difference. Nothing here begins or commits a transaction or repairs anything, and no
transaction is open during a request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, literal, or_, select
from sqlalchemy.orm import Session

from app.database.models import DetectionRun, Media, MediaStatus, OutboxMessage, OutboxStream
from app.outbox.messages import MessageKind

FetchRecord = Callable[[str, str], Mapping[str, Any] | None]
"""Fetches the annotations service's record of (media id, user id); None if it has none.

Raises RecordsNotReadable if the service does not let its records be read, Unavailable if it does not answer now.
"""

PAGE = 500
_OWN_STATUSES = {int(status) for status in MediaStatus}


class RemoteState(StrEnum):
    """How the annotations service's record differs from the local one."""

    SAME = "same"
    MISSING = "missing"
    BEHIND = "behind"  # another status, which resending corrects
    AHEAD = "ahead"  # a status from which no transition leads to the local one; a new run makes both agree
    OTHER_TYPE = "other-type"


@dataclass(frozen=True, slots=True)
class ExpectedRemoteState:
    """The record that the annotations service should have of a media item.

    `status` is None while messages are pending, because they may change it. `nothing_delivered` says that no message
    was delivered yet, `create_pending` that a create is pending, `parked` that the stream is parked. `version` changes
    with every change of the stream; it is None for an adopted media item, which has no stream.
    """

    media_id: str
    user_id: str
    media_type: str
    status: int | None
    nothing_delivered: bool
    create_pending: bool
    parked: bool
    version: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Difference:
    """The result of one comparison; `problem` describes it to people."""

    media_id: str
    state: RemoteState
    problem: str


def expected_page(session: Session, after: str, chosen: ColumnElement[bool] | None = None) -> list[ExpectedRemoteState]:
    """Return the next PAGE expected records by media id, of media items that satisfy `chosen` if given."""
    query = _expected().where(Media.id > after).order_by(Media.id).limit(PAGE)
    return _read(session, query if chosen is None else query.where(chosen))


def expected_for(session: Session, media_ids: Sequence[str]) -> list[ExpectedRemoteState]:
    """Return the expected records of these media items; unknown ids are ignored."""
    return _read(session, _expected().where(Media.id.in_(media_ids)).order_by(Media.id))


def changed_since(moment: float) -> ColumnElement[bool]:
    """Return the condition that a media item was changed or delivered since `moment`, in seconds since 1970."""
    delivered = select(OutboxMessage.media_id).where(OutboxMessage.delivered_at >= moment)
    ended = select(DetectionRun.media_id).where(DetectionRun.finished_at >= moment)
    return or_(Media.created_at >= moment, Media.id.in_(delivered), Media.id.in_(ended))


def compare(expected: ExpectedRemoteState, record: Mapping[str, Any] | None) -> Difference:
    """Compare a record with the expected one. The statuses of other services (4, 5) follow all local statuses."""
    if record is None:
        return Difference(expected.media_id, RemoteState.MISSING, "GET says that it is not there")
    type_there, status_there = record.get("mediaType"), record.get("mediaStatus")
    if type_there is not None and type_there != expected.media_type:
        return _difference(expected, RemoteState.OTHER_TYPE, "mediaType", type_there, expected.media_type)
    if expected.status is None or status_there not in _OWN_STATUSES or status_there == expected.status:
        return Difference(expected.media_id, RemoteState.SAME, "")
    state = RemoteState.AHEAD if expected.status == MediaStatus.NEW else RemoteState.BEHIND
    return _difference(expected, state, "mediaStatus", status_there, expected.status)


def _difference(expected: ExpectedRemoteState, state: RemoteState, field: str, there: Any, here: Any) -> Difference:
    return Difference(expected.media_id, state, f"{field} is {there!r} there, {here!r} here")


def _expected() -> Select[*tuple[Any, ...]]:
    waiting_create = exists(literal(1)).where(
        OutboxMessage.media_id == OutboxStream.media_id,
        OutboxMessage.seq > OutboxStream.acked_seq,
        OutboxMessage.kind == MessageKind.CREATE,
    )
    return select(
        Media.id,
        Media.user_id,
        Media.media_type,
        Media.media_status,
        OutboxStream.acked_seq,
        OutboxStream.last_seq,
        OutboxStream.lease_epoch,
        OutboxStream.parked_at,
        and_(OutboxStream.acked_seq < OutboxStream.last_seq, waiting_create).label("create_pending"),
    ).outerjoin(OutboxStream, OutboxStream.media_id == Media.id)


def _read(session: Session, query: Select[*tuple[Any, ...]]) -> list[ExpectedRemoteState]:
    return [
        ExpectedRemoteState(
            media_id=row.id,
            user_id=row.user_id,
            media_type=row.media_type,
            # Without messages the annotations service set the status: the media item was adopted from it.
            status=row.media_status if row.last_seq and (row.acked_seq == row.last_seq or row.parked_at) else None,
            nothing_delivered=row.acked_seq == 0,
            create_pending=bool(row.create_pending) and row.parked_at is None,
            parked=row.parked_at is not None,
            version=None if row.last_seq is None else (row.acked_seq, row.last_seq, row.lease_epoch, row.media_status),
        )
        for row in session.execute(query)
    ]
