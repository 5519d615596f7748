"""The rows of resumable uploads. Nothing here begins or commits a transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, update
from sqlalchemy.orm import Session

from app.errors import DetectionsError, TooManyUploads
from app.models import ResumableUpload

KEPT_SECONDS = 3600.0
"""How long the row of an upload that has ended tells what came of it."""

UNFINISHED_SECONDS = 60.0
"""How long an upload whose bytes are all there is left to its client, before any process takes it in."""

_TABLE: Table = ResumableUpload.__table__  # type: ignore[assignment]
_RECEIVING = ResumableUpload.state == "receiving"


def fetch(session: Session, upload_id: str, user_id: str) -> ResumableUpload | None:
    """The upload with that id, if it is this user's."""
    found = session.get(ResumableUpload, upload_id)
    return found if found is not None and found.user_id == user_id else None


def is_expired(session: Session, now: ColumnElement[float], upload: ResumableUpload) -> bool:
    """Whether the upload's time has passed, by the database's clock."""
    return float(session.scalar(select(now)) or 0.0) >= upload.expires_at


def check_count(session: Session, now: ColumnElement[float], user_id: str, most: int) -> None:
    """Raise TooManyUploads where the user has `most` unfinished uploads. To be called in the transaction that adds
    one, which on SQLite no other can join; on PostgreSQL two that come at once may both be let in."""
    mine = select(func.count()).where(ResumableUpload.user_id == user_id, _RECEIVING, ResumableUpload.expires_at > now)
    count = session.scalar(mine) or 0
    if count >= most:
        raise TooManyUploads(
            f"You have {count} unfinished uploads, and UNFINISHED_UPLOADS_PER_USER is {most}; finish or DELETE some."
        )


def add(session: Session, now: ColumnElement[float], upload: ResumableUpload, lifetime: float) -> None:
    """Add a new upload, which learns its times."""
    upload.created_at = float(session.scalar(select(now)) or 0.0)
    upload.expires_at = upload.created_at + lifetime
    session.add(upload)
    session.flush()


def advance(
    session: Session, now: ColumnElement[float], upload: ResumableUpload, received: int, lifetime: float
) -> float | None:
    """Say that `received` bytes are durable now, where the row is still as `upload` has it; returns when the upload
    expires, in seconds since 1970, or None where another process has gone on with it."""
    is_as_seen = (ResumableUpload.received == upload.received, _RECEIVING)
    return session.scalar(
        update(ResumableUpload)
        .where(ResumableUpload.id == upload.id, *is_as_seen)
        .values(received=received, expires_at=now + lifetime)
        .returning(ResumableUpload.expires_at)
    )


def tell_length(session: Session, upload: ResumableUpload, length: int, file: str) -> bool:
    """Note the length that the client had left open, and the file's name that promises it; False where somebody has
    told another one."""
    told = session.execute(
        update(ResumableUpload)
        .where(ResumableUpload.id == upload.id, ResumableUpload.length.is_(None), _RECEIVING)
        .values(length=length, file=file)
        .returning(ResumableUpload.id)
    )
    return told.first() is not None


def ask_to_stop(session: Session, upload_id: str) -> int:
    """Ask whoever writes the upload to stop; returns the number of this request among those that asked."""
    asked = update(ResumableUpload).where(ResumableUpload.id == upload_id)
    counted = asked.values(takeovers=ResumableUpload.takeovers + 1).returning(ResumableUpload.takeovers)
    return session.scalar(counted) or 0


def takeovers(session: Session, upload_id: str) -> int | None:
    """How many requests have asked the writer to stop; None where the upload is gone."""
    return session.scalar(select(ResumableUpload.takeovers).where(ResumableUpload.id == upload_id))


def complete(
    connection: Connection, now: ColumnElement[float], upload: ResumableUpload, media_id: str, *, duplicate: bool
) -> None:
    """Say in the caller's transaction that the upload became that media item."""
    _end(connection, now, [upload.id], state="complete", media_id=media_id, duplicate=duplicate)


def fail(connection: Connection, now: ColumnElement[float], upload: ResumableUpload, error: DetectionsError) -> None:
    """Say in the caller's transaction why the upload was refused."""
    about = getattr(error, "media_id", None)
    _end(
        connection,
        now,
        [upload.id],
        state="failed",
        error=type(error).__name__,
        error_detail=str(error),
        media_id=about,
    )


def use_up(connection: Connection, now: ColumnElement[float], parts: Sequence[ResumableUpload]) -> None:
    """Say in the caller's transaction that partial uploads have become a final one."""
    _end(connection, now, [part.id for part in parts], state="complete")


def _end(connection: Connection, now: ColumnElement[float], ids: Sequence[str], **values: Any) -> None:
    connection.execute(
        update(_TABLE)
        .where(_TABLE.c.id.in_(ids), _TABLE.c.state == "receiving")
        .values(file=None, expires_at=now + KEPT_SECONDS, **values)
    )


def expired(session: Session, now: ColumnElement[float], most: int) -> list[ResumableUpload]:
    """Uploads whose time has passed."""
    found = select(ResumableUpload).where(ResumableUpload.expires_at <= now).order_by(ResumableUpload.expires_at)
    return list(session.scalars(found.limit(most)))


def left_behind(session: Session, now: ColumnElement[float], lifetime: float, most: int) -> list[ResumableUpload]:
    """Uploads whose bytes are all there and whose client has not come back for UNFINISHED_SECONDS."""
    found = select(ResumableUpload).where(
        _RECEIVING,
        ResumableUpload.kind != "partial",
        ResumableUpload.received == ResumableUpload.length,
        ResumableUpload.expires_at.between(now, now + (lifetime - UNFINISHED_SECONDS)),
    )
    return list(session.scalars(found.limit(most)))


def forget(session: Session, now: ColumnElement[float] | None, upload: ResumableUpload) -> bool:
    """Delete the row; with `now`, only if its time has passed. False where it is gone or has got more time."""
    gone = delete(ResumableUpload).where(ResumableUpload.id == upload.id)
    if now is not None:
        gone = gone.where(ResumableUpload.expires_at <= now)
    return session.scalar(gone.returning(ResumableUpload.id)) is not None


def final_of(session: Session, user_id: str, parts: str) -> ResumableUpload | None:
    """The final upload that was made of these parts, ids with spaces between."""
    mine = select(ResumableUpload).where(ResumableUpload.user_id == user_id, ResumableUpload.kind == "final")
    return session.scalars(mine.where(ResumableUpload.parts == parts)).first()


def unfinished(session: Session, now: ColumnElement[float]) -> tuple[int, int]:
    """How many uploads are unfinished, and how many bytes of those whose length is told are still to come."""
    missing = func.coalesce(func.sum(ResumableUpload.length - ResumableUpload.received), 0)
    count, to_come = session.execute(
        select(func.count(), missing).where(_RECEIVING, ResumableUpload.expires_at > now)
    ).one()
    return count, int(to_come or 0)
