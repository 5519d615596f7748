"""The tables of the service itself: counters, shared keys, the database's identity and resumable uploads."""

from sqlalchemy import BigInteger, CheckConstraint, Double, Index, Integer, SmallInteger, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.database.models.base import Base


class CounterShard(Base):
    """A part of a counter, added to in the transaction that records what it counts; the counter is their sum.

    Writers that would wait for each other add to different shards.
    """

    __tablename__ = "counter_shard"
    __table_args__ = (CheckConstraint("value >= 0", name="value_not_negative"),)

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    shard: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, server_default=text("0"))
    value: Mapped[float] = mapped_column(Double)


class SharedKey(Base):
    """A secret shared by the processes on this database: 32 random bytes as hex digits."""

    __tablename__ = "shared_key"
    __table_args__ = (CheckConstraint("length(secret) = 64", name="secret_length"),)

    purpose: Mapped[str] = mapped_column(String(32), primary_key=True)
    secret: Mapped[str] = mapped_column(String(64))


class DatabaseInstance(Base):
    """The single row with the database's identity and the position of its history.

    `instance_id`, `epoch` and `counter` are copied to the marker of each media folder. The counter grows soon after
    messages are committed. The epoch grows when the database is behind a marker, because it was restored from a copy;
    `restored_at` is when that was noticed, until a person has resent what the annotations service lacks.
    `server_history` identifies the PostgreSQL server that the database was last used with
    (`app.database.postgres_failover`).
    """

    __tablename__ = "database_instance"
    __table_args__ = (
        CheckConstraint("id = 1", name="single_row"),
        CheckConstraint("length(instance_id) = 36", name="instance_id_length"),
        CheckConstraint("epoch >= 1 AND counter >= 0", name="reached_not_negative"),
    )

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    instance_id: Mapped[str] = mapped_column(String(36))
    epoch: Mapped[int] = mapped_column(Integer)
    counter: Mapped[int] = mapped_column(BigInteger)
    restored_at: Mapped[float | None] = mapped_column(Double)
    server_history: Mapped[str | None] = mapped_column(String(64))


class ResumableUpload(Base):
    """A resumable upload: `received` of its `length` bytes are durable in `file`, a path in `.incoming/`.

    `length` is NULL until the client sends it. `upload_metadata` is the client's Upload-Metadata header. `takeovers`
    counts the requests that asked the writing request to stop. A `partial` upload is concatenated into the `final` one
    whose `parts` (ids separated by spaces) name it. After its end the row stays until `expires_at` with the result: the
    media item, or the class and text of the error.
    """

    __tablename__ = "resumable_upload"
    __table_args__ = (
        CheckConstraint("kind IN ('single', 'partial', 'final')", name="kind_allowed"),
        CheckConstraint("state IN ('receiving', 'complete', 'failed')", name="state_allowed"),
        CheckConstraint("(state = 'receiving') = (file IS NOT NULL)", name="receiving_has_file"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_has_error"),
        CheckConstraint("received >= 0 AND (length IS NULL OR received <= length)", name="received_within_length"),
        CheckConstraint("length(user_id) BETWEEN 1 AND 255", name="user_present"),
        Index("uq_resumable_upload_file", "file", unique=True),
        Index("ix_resumable_upload_user", "user_id", "state"),
        Index("ix_resumable_upload_expires_at", "expires_at"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(7))
    state: Mapped[str] = mapped_column(String(9))
    file: Mapped[str | None] = mapped_column(Text)
    upload_metadata: Mapped[str] = mapped_column(Text)
    length: Mapped[int | None] = mapped_column(BigInteger)
    received: Mapped[int] = mapped_column(BigInteger)
    takeovers: Mapped[int] = mapped_column(Integer)
    parts: Mapped[str | None] = mapped_column(Text)
    media_id: Mapped[str | None] = mapped_column(String(16))
    duplicate: Mapped[bool | None]
    error: Mapped[str | None] = mapped_column(String(32))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float] = mapped_column(Double)
