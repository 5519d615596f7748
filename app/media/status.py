"""A media's status and the message that tells of it, changed together in the caller's transaction.

Nothing here begins or commits a transaction. Whoever creates a media or changes its status does so through the
functions here, so neither a record without its message nor a message without its record can be committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, bindparam, insert, select, update

from app.database import WriteTransaction
from app.database.models import Media, MediaStatus
from app.errors import IllegalTransition
from app.outbox.messages import MessageKind
from app.outbox.queue import NewMessage, OutboxQueue

_MEDIA: Table = Media.__table__  # type: ignore[assignment]
_ADD_MEDIA = insert(_MEDIA)

ALLOWED_FROM = {
    MediaStatus.AI_PROCESSING: (MediaStatus.NEW, MediaStatus.AI_PROCESSED, MediaStatus.ERROR),
    MediaStatus.AI_PROCESSED: (MediaStatus.AI_PROCESSING,),
    MediaStatus.ERROR: (MediaStatus.AI_PROCESSING,),
}

_CHANGE_STATUS = {
    status: update(_MEDIA)
    .where(_MEDIA.c.id == bindparam("media"), _MEDIA.c.media_status.in_(before))
    .values(media_status=status)
    .returning(_MEDIA.c.user_id)
    for status, before in ALLOWED_FROM.items()
}


@dataclass(frozen=True, slots=True)
class NewMedia:
    """A media to create, and the request that brought it."""

    media: Media
    request_id: str | None


def create_media(transaction: WriteTransaction, queue: OutboxQueue, media: Media, *, request_id: str | None) -> None:
    """Insert a new media with its create message; raises IntegrityError where the id is taken."""
    now = transaction.scalars(select(queue.now)).one()
    create_all(transaction, queue, [NewMedia(media, request_id)], now)


def create_all(transaction: WriteTransaction, queue: OutboxQueue, new: Sequence[NewMedia], now: float) -> None:
    """Insert media with their create messages, which are due from `now` on; IntegrityError where an id is taken."""
    if transaction.core.dialect.name == "postgresql":  # one statement for each, where these are three for all
        for one in new:
            queue.begin_with_media(transaction, _row(one.media), _create_message(one), now)
        return
    transaction.core.execute(_ADD_MEDIA, [_row(one.media) for one in new])
    queue.begin_streams(transaction, [_create_message(one) for one in new], now)


def _row(media: Media) -> dict[str, Any]:
    return {
        "id": media.id,
        "name": media.name,
        "path": media.path,
        "media_type": media.media_type,
        "media_status": MediaStatus.NEW,
        "user_id": media.user_id,
        "size_bytes": media.size_bytes,
        "checksum": media.checksum,
        "created_at": media.created_at,
    }


def _create_message(new: NewMedia) -> NewMessage:
    media = new.media
    payload = {
        "id": media.id,
        "name": media.name,
        "path": media.path,
        "mediaType": media.media_type,
        "mediaStatus": int(MediaStatus.NEW),
        "userId": media.user_id,
    }
    return NewMessage(media.id, MessageKind.CREATE, payload, user_id=media.user_id, request_id=new.request_id)


def change_status(
    transaction: WriteTransaction, queue: OutboxQueue, media_id: str, status: MediaStatus, *, request_id: str | None
) -> None:
    """Move a media to `status` and enqueue the message of it; raises IllegalTransition where that is not allowed."""
    change = _CHANGE_STATUS.get(status)
    user_id = None if change is None else transaction.core.execute(change, {"media": media_id}).scalar()
    if user_id is None:
        raise IllegalTransition(f"Media {media_id} is not at a status from which {status.name} may follow.")
    payload = {"mediaStatus": int(status)}
    queue.enqueue(transaction, media_id, MessageKind.STATUS, payload, user_id=user_id, request_id=request_id)


_LEADS_TO = {
    MediaStatus.NEW: (),
    MediaStatus.AI_PROCESSING: (MediaStatus.AI_PROCESSING,),
    MediaStatus.AI_PROCESSED: (MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED),
    MediaStatus.ERROR: (MediaStatus.AI_PROCESSING, MediaStatus.ERROR),
}


@dataclass(frozen=True, slots=True)
class StatusTimes:
    """When the last run of a media item began and ended, in seconds since 1970; None where there was no such run."""

    began: float | None
    ended: float | None


def append_create_and_statuses(
    transaction: WriteTransaction, queue: OutboxQueue, media: Media, times: StatusTimes
) -> dict[int, float]:
    """Enqueue a create and the statuses that lead to the present one; returns the time of each change, by number."""
    create = _create_message(NewMedia(media, None))
    changes = [(create.kind, create.payload, media.created_at)]
    for status in _LEADS_TO[MediaStatus(media.media_status)]:
        at = times.began if status is MediaStatus.AI_PROCESSING else times.ended
        changes.append((MessageKind.STATUS, {"mediaStatus": int(status)}, at or media.created_at))
    return {
        queue.enqueue(transaction, media.id, kind, payload, user_id=media.user_id, request_id=None): at
        for kind, payload, at in changes
    }


def keep_checksum(session: WriteTransaction, media_id: str, checksum: str) -> bool:
    """Note the checksum of a media that has none; False where it has one, which is never changed, or is unknown."""
    result = session.execute(
        update(Media)
        .where(Media.id == media_id, Media.checksum.is_(None))
        .values(checksum=checksum)
        .returning(Media.id)
        .execution_options(synchronize_session=False)
    )
    return result.first() is not None
