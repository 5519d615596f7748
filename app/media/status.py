"""Changes a media item's status together with the message about it, in the caller's transaction.

Nothing here begins or commits a transaction. Media items are created and their status is changed only through this
module, so neither a record without its message nor a message without its record can be committed.
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
    """A media item to create, and the id of the request that brought it."""

    media: Media
    request_id: str | None


def create_media(transaction: WriteTransaction, queue: OutboxQueue, media: Media, *, request_id: str | None) -> None:
    """Insert a new media item with its create message. Raises IntegrityError if the id exists."""
    now = transaction.scalars(select(queue.now)).one()
    create_all(transaction, queue, [NewMedia(media, request_id)], now)


def create_all(transaction: WriteTransaction, queue: OutboxQueue, new: Sequence[NewMedia], now: float) -> None:
    """Insert media items with their create messages, due from `now` on. Raises IntegrityError if an id exists."""
    if transaction.core.dialect.name == "postgresql":  # one statement per item instead of three for all
        for item in new:
            queue.begin_with_media(transaction, _row(item.media), _create_message(item), now)
        return
    transaction.core.execute(_ADD_MEDIA, [_row(item.media) for item in new])
    queue.begin_streams(transaction, [_create_message(item) for item in new], now)


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
    """Set the status of a media item and enqueue its message. Raises IllegalTransition if that is not allowed."""
    change = _CHANGE_STATUS.get(status)
    user_id = None if change is None else transaction.core.execute(change, {"media": media_id}).scalar()
    if user_id is None:
        raise IllegalTransition(f"Media {media_id} does not exist or has a status that {status.name} cannot follow.")
    payload = {"mediaStatus": int(status)}
    queue.enqueue(transaction, media_id, MessageKind.STATUS, payload, user_id=user_id, request_id=request_id)


_STATUSES_UP_TO = {
    MediaStatus.NEW: (),
    MediaStatus.AI_PROCESSING: (MediaStatus.AI_PROCESSING,),
    MediaStatus.AI_PROCESSED: (MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED),
    MediaStatus.ERROR: (MediaStatus.AI_PROCESSING, MediaStatus.ERROR),
}


@dataclass(frozen=True, slots=True)
class StatusTimes:
    """Start and end of a media item's last run in seconds since 1970; None if there was no such run."""

    began: float | None
    ended: float | None


def append_create_and_statuses(
    transaction: WriteTransaction, queue: OutboxQueue, media: Media, times: StatusTimes
) -> dict[int, float]:
    """Enqueue a create message and the statuses up to the current one. Return each change's time by number."""
    create = _create_message(NewMedia(media, None))
    changes = [(create.kind, create.payload, media.created_at)]
    for status in _STATUSES_UP_TO[MediaStatus(media.media_status)]:
        at = times.began if status is MediaStatus.AI_PROCESSING else times.ended
        changes.append((MessageKind.STATUS, {"mediaStatus": int(status)}, at or media.created_at))
    return {
        queue.enqueue(transaction, media.id, kind, payload, user_id=media.user_id, request_id=None): at
        for kind, payload, at in changes
    }


def record_checksum(session: WriteTransaction, media_id: str, checksum: str) -> bool:
    """Record the checksum of a media item. Return False if it has one, which is never changed, or does not exist."""
    result = session.execute(
        update(Media)
        .where(Media.id == media_id, Media.checksum.is_(None))
        .values(checksum=checksum)
        .returning(Media.id)
        .execution_options(synchronize_session=False)
    )
    return result.first() is not None
