"""Queries and statements on rows of resumable uploads. Nothing here begins or commits a transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, func, select, update
from sqlalchemy.orm import Session

from app.database import WriteTransaction
from app.database.models import ResumableUpload
from app.errors import DetectionsError, TooManyUploads

RESULT_SECONDS = 3600.0
"""How long the row of an ended upload is kept for its client."""

ABANDONED_SECONDS = 60.0
"""How long a complete upload is left to its client before any process finishes it."""

_TABLE: Table = ResumableUpload.__table__  # type: ignore[assignment]
_RECEIVING = ResumableUpload.state == "receiving"


def fetch(session: Session, upload_id: str, user_id: str) -> ResumableUpload | None:
    """Return the upload with that id if it belongs to the user, else None."""
    upload = session.get(ResumableUpload, upload_id)
    return upload if upload is not None and upload.user_id == user_id else None


def is_expired(session: Session, now: ColumnElement[float], upload: ResumableUpload) -> bool:
    """Return whether the upload has expired by the database's clock."""
    return float(session.scalar(select(now)) or 0.0) >= upload.expires_at


def check_count(session: Session, now: ColumnElement[float], user_id: str, limit: int) -> None:
    """Raise TooManyUploads if the user has `limit` unfinished uploads.

    Call it in the transaction that adds one. On PostgreSQL two concurrent uploads may both pass.
    """
    unfinished_of_user = select(func.count()).where(
        ResumableUpload.user_id == user_id, _RECEIVING, ResumableUpload.expires_at > now
    )
    count = session.scalar(unfinished_of_user) or 0
    if count >= limit:
        raise TooManyUploads(
            f"You have {count} unfinished uploads; UNFINISHED_UPLOADS_PER_USER is {limit}. Finish or delete some."
        )


def add(session: Session, now: ColumnElement[float], upload: ResumableUpload, lifetime: float) -> None:
    """Add a new upload and set its times."""
    upload.created_at = float(session.scalar(select(now)) or 0.0)
    upload.expires_at = upload.created_at + lifetime
    session.add(upload)
    session.flush()


def advance(
    session: Session, now: ColumnElement[float], upload: ResumableUpload, received: int, lifetime: float
) -> float | None:
    """Record that `received` bytes are durable if the row still has `upload.received`.

    Return the new expiry in seconds since 1970, or None if another process has continued the upload.
    """
    unchanged = (ResumableUpload.received == upload.received, _RECEIVING)
    return session.scalar(
        update(ResumableUpload)
        .where(ResumableUpload.id == upload.id, *unchanged)
        .values(received=received, expires_at=now + lifetime)
        .returning(ResumableUpload.expires_at)
    )


def set_length(session: Session, upload: ResumableUpload, length: int, file: str) -> bool:
    """Record the deferred length and the file's name with it. Return False if a length is recorded already."""
    updated = session.execute(
        update(ResumableUpload)
        .where(ResumableUpload.id == upload.id, ResumableUpload.length.is_(None), _RECEIVING)
        .values(length=length, file=file)
        .returning(ResumableUpload.id)
    )
    return updated.first() is not None


def request_takeover(session: Session, upload_id: str) -> int:
    """Ask the upload's writer to stop. Return this request's number among those that asked."""
    requested = update(ResumableUpload).where(ResumableUpload.id == upload_id)
    numbered = requested.values(takeovers=ResumableUpload.takeovers + 1).returning(ResumableUpload.takeovers)
    return session.scalar(numbered) or 0


def takeovers(session: Session, upload_id: str) -> int | None:
    """Return how many requests have asked the writer to stop; None if the upload is gone."""
    return session.scalar(select(ResumableUpload.takeovers).where(ResumableUpload.id == upload_id))


def complete(
    transaction: WriteTransaction, now: ColumnElement[float], upload: ResumableUpload, media_id: str, *, duplicate: bool
) -> None:
    """Record that the upload became that media item."""
    _end(transaction, now, [upload.id], state="complete", media_id=media_id, duplicate=duplicate)


def fail(
    transaction: WriteTransaction, now: ColumnElement[float], upload: ResumableUpload, error: DetectionsError
) -> None:
    """Record why the upload was refused."""
    media_id = getattr(error, "media_id", None)
    _end(
        transaction,
        now,
        [upload.id],
        state="failed",
        error=type(error).__name__,
        error_detail=str(error),
        media_id=media_id,
    )


def end_parts(transaction: WriteTransaction, now: ColumnElement[float], parts: Sequence[ResumableUpload]) -> None:
    """Record that partial uploads became a final one."""
    _end(transaction, now, [part.id for part in parts], state="complete")


def _end(transaction: WriteTransaction, now: ColumnElement[float], ids: Sequence[str], **values: Any) -> None:
    transaction.execute(
        update(_TABLE)
        .where(_TABLE.c.id.in_(ids), _TABLE.c.state == "receiving")
        .values(file=None, expires_at=now + RESULT_SECONDS, **values)
    )


def expired(session: Session, now: ColumnElement[float], limit: int) -> list[ResumableUpload]:
    """Return up to `limit` expired uploads."""
    query = select(ResumableUpload).where(ResumableUpload.expires_at <= now).order_by(ResumableUpload.expires_at)
    return list(session.scalars(query.limit(limit)))


def abandoned(session: Session, now: ColumnElement[float], lifetime: float, limit: int) -> list[ResumableUpload]:
    """Return up to `limit` complete uploads whose client did not return for ABANDONED_SECONDS."""
    query = select(ResumableUpload).where(
        _RECEIVING,
        ResumableUpload.kind != "partial",
        ResumableUpload.received == ResumableUpload.length,
        ResumableUpload.expires_at.between(now, now + (lifetime - ABANDONED_SECONDS)),
    )
    return list(session.scalars(query.limit(limit)))


def delete_row(session: Session, now: ColumnElement[float] | None, upload: ResumableUpload) -> bool:
    """Delete the row; with `now`, only if it has expired. Return False if it is gone or has not expired."""
    deletion = delete(ResumableUpload).where(ResumableUpload.id == upload.id)
    if now is not None:
        deletion = deletion.where(ResumableUpload.expires_at <= now)
    return session.scalar(deletion.returning(ResumableUpload.id)) is not None


def final_of(session: Session, user_id: str, parts: str) -> ResumableUpload | None:
    """Return the final upload made of these parts (ids separated by spaces), or None."""
    finals = select(ResumableUpload).where(ResumableUpload.user_id == user_id, ResumableUpload.kind == "final")
    return session.scalars(finals.where(ResumableUpload.parts == parts)).first()


def unfinished(session: Session, now: ColumnElement[float]) -> tuple[int, int]:
    """Return the number of unfinished uploads, and the bytes still to come of those with a known length."""
    remaining_sum = func.coalesce(func.sum(ResumableUpload.length - ResumableUpload.received), 0)
    count, remaining = session.execute(
        select(func.count(), remaining_sum).where(_RECEIVING, ResumableUpload.expires_at > now)
    ).one()
    return count, int(remaining or 0)
