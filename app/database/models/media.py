"""The table of media items."""

from enum import IntEnum
from typing import Literal

from sqlalchemy import BigInteger, CheckConstraint, Double, Index, SmallInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.database.models.base import Base


class MediaStatus(IntEnum):
    """The statuses that this service writes; 4 and 5 belong to other services."""

    NEW = 1
    AI_PROCESSING = 2
    AI_PROCESSED = 3
    ERROR = 6


class Media(Base):
    """A media item: a stored file with its record.

    `checksum` is the XXH3-128 of its bytes as 32 hex digits; NULL for rows from before migration 0002.
    """

    __tablename__ = "media"
    __table_args__ = (
        CheckConstraint("length(id) = 16", name="id_length"),
        CheckConstraint("media_status IN (1, 2, 3, 6)", name="status_allowed"),
        CheckConstraint("media_type IN ('Video', 'Image')", name="type_allowed"),
        CheckConstraint("size_bytes >= 0", name="size_not_negative"),
        CheckConstraint("length(user_id) BETWEEN 1 AND 255", name="user_present"),
        CheckConstraint("length(name) BETWEEN 1 AND 255", name="name_present"),
        Index("uq_media_path", "path", unique=True),
        Index("ix_media_newest", "created_at", "id"),
        Index("ix_media_filtered", "media_status", "media_type", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    path: Mapped[str] = mapped_column(Text)
    media_type: Mapped[Literal["Video", "Image"]] = mapped_column(String(5))
    media_status: Mapped[int] = mapped_column(SmallInteger)
    user_id: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    checksum: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[float] = mapped_column(Double)
