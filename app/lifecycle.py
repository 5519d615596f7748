"""A media's status and the message that tells of it, changed together in the caller's transaction.

Nothing here begins or commits a transaction. Whoever creates a media or changes its status does so through the
functions here, so neither a record without its message nor a message without its record can be committed.
"""

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from app.errors import IllegalTransition
from app.models import Media, MediaStatus
from app.outbox.messages import Kind
from app.outbox.queue import OutboxQueue

ALLOWED_FROM = {
    MediaStatus.AI_PROCESSING: (MediaStatus.NEW, MediaStatus.AI_PROCESSED, MediaStatus.ERROR),
    MediaStatus.AI_PROCESSED: (MediaStatus.AI_PROCESSING,),
    MediaStatus.ERROR: (MediaStatus.AI_PROCESSING,),
}


def create_media(session: Session, queue: OutboxQueue, media: Media, *, request_id: str | None) -> None:
    """Insert a new media with its create message; raises IntegrityError where the id is taken."""
    session.execute(
        insert(Media).values(
            id=media.id,
            name=media.name,
            path=media.path,
            media_type=media.media_type,
            media_status=MediaStatus.NEW,
            user_id=media.user_id,
            size_bytes=media.size_bytes,
            checksum=media.checksum,
            created_at=media.created_at,
        )
    )
    payload = {
        "id": media.id,
        "name": media.name,
        "path": media.path,
        "mediaType": media.media_type,
        "mediaStatus": int(MediaStatus.NEW),
        "userId": media.user_id,
    }
    queue.enqueue(session, media.id, Kind.CREATE, payload, user_id=media.user_id, request_id=request_id)


def change_status(
    session: Session, queue: OutboxQueue, media_id: str, status: MediaStatus, *, request_id: str | None
) -> None:
    """Move a media to `status` and enqueue the message of it; raises IllegalTransition where that is not allowed."""
    user_id = session.scalar(
        update(Media)
        .where(Media.id == media_id, Media.media_status.in_(ALLOWED_FROM.get(status, ())))
        .values(media_status=status)
        .returning(Media.user_id)
        .execution_options(synchronize_session=False)
    )
    if user_id is None:
        raise IllegalTransition(f"Media {media_id} is not at a status from which {status.name} may follow.")
    payload = {"mediaStatus": int(status)}
    queue.enqueue(session, media_id, Kind.STATUS, payload, user_id=user_id, request_id=request_id)


def keep_checksum(session: Session, media_id: str, checksum: str) -> bool:
    """Note the checksum of a media that has none; False where it has one, which is never changed, or is unknown."""
    result = session.execute(
        update(Media)
        .where(Media.id == media_id, Media.checksum.is_(None))
        .values(checksum=checksum)
        .returning(Media.id)
        .execution_options(synchronize_session=False)
    )
    return result.first() is not None
