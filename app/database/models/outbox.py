"""The tables of the outbox: streams, their messages and attempts, circuits and holds."""

from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.database.models.base import Base, BigId


class OutboxStream(Base):
    """The stream of one media item's messages, with the state of its head: the message `acked_seq` + 1.

    `due_at` is ready time, end of backoff and end of lease in one: the stream may be claimed afterwards. Idle and
    parked streams have none. `attempts` counts all attempts of the head, `failures` those that lengthen the backoff,
    and `counted_attempts` those limited in number, the first of which was answered at `refused_since`.
    `outcome_unknown` says that an attempt may have arrived although no answer came. `user_id` is the media item's user;
    a hold on the user suspends the stream.
    """

    __tablename__ = "outbox_stream"
    __table_args__ = (
        CheckConstraint("acked_seq BETWEEN 0 AND last_seq", name="acked_within_last"),
        CheckConstraint("attempts >= 0 AND failures >= 0 AND counted_attempts >= 0", name="attempts_not_negative"),
        CheckConstraint("parked_at IS NULL OR (due_at IS NULL AND lease_owner IS NULL)", name="parked_is_not_due"),
        CheckConstraint(
            "(acked_seq = last_seq) = (due_at IS NULL AND parked_at IS NULL)", name="waiting_is_due_or_parked"
        ),
        CheckConstraint("(acked_seq = last_seq) = (waiting_since IS NULL)", name="waiting_has_since"),
        Index(
            "ix_outbox_stream_due",
            "due_at",
            sqlite_where=text("due_at IS NOT NULL"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
        Index(
            "ix_outbox_stream_user",
            "user_id",
            "due_at",
            sqlite_where=text("due_at IS NOT NULL"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
        Index(
            "ix_outbox_stream_parked",
            "parked_at",
            sqlite_where=text("parked_at IS NOT NULL"),
            postgresql_where=text("parked_at IS NOT NULL"),
        ),
        Index(
            "ix_outbox_stream_leased",
            "due_at",
            sqlite_where=text("lease_owner IS NOT NULL"),
            postgresql_where=text("lease_owner IS NOT NULL"),
        ),
    )

    media_id: Mapped[str] = mapped_column(ForeignKey("media.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    last_seq: Mapped[int] = mapped_column(Integer)
    acked_seq: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[float | None] = mapped_column(Double)
    lease_epoch: Mapped[int] = mapped_column(Integer)
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    attempts: Mapped[int] = mapped_column(Integer)
    failures: Mapped[int] = mapped_column(Integer)
    counted_attempts: Mapped[int] = mapped_column(Integer)
    refused_since: Mapped[float | None] = mapped_column(Double)
    outcome_unknown: Mapped[bool]
    waiting_since: Mapped[float | None] = mapped_column(Double)
    parked_at: Mapped[float | None] = mapped_column(Double)
    park_reason: Mapped[str | None] = mapped_column(Text)
    last_status: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None] = mapped_column(Text)


class OutboxMessage(Base):
    """One message; `delivered_at` and `outcome` are set together when it stops waiting.

    `changed_at` is when the reported change happened, if not at `created_at`.
    """

    __tablename__ = "outbox_message"
    __table_args__ = (
        ForeignKeyConstraint(["media_id"], ["outbox_stream.media_id"]),
        CheckConstraint("seq >= 1", name="seq_from_one"),
        CheckConstraint("kind IN ('create', 'status')", name="kind_allowed"),
        CheckConstraint("(delivered_at IS NULL) = (outcome IS NULL)", name="delivered_has_outcome"),
        CheckConstraint("outcome IN ('accepted', 'duplicate', 'superseded', 'skipped')", name="outcome_allowed"),
        Index(
            "ix_outbox_message_delivered",
            "delivered_at",
            sqlite_where=text("delivered_at IS NOT NULL"),
            postgresql_where=text("delivered_at IS NOT NULL"),
        ),
    )

    media_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    kind: Mapped[str] = mapped_column(String(6))
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    idempotency_key: Mapped[str] = mapped_column(String(36))
    user_id: Mapped[str] = mapped_column(String(255))
    request_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Double)
    changed_at: Mapped[float | None] = mapped_column(Double)
    delivered_at: Mapped[float | None] = mapped_column(Double)
    outcome: Mapped[str | None] = mapped_column(String(10))


class OutboxAttempt(Base):
    """One attempt to send a message, stored for people."""

    __tablename__ = "outbox_attempt"
    __table_args__ = (
        ForeignKeyConstraint(
            ["media_id", "seq"], ["outbox_message.media_id", "outbox_message.seq"], ondelete="CASCADE"
        ),
        Index("ix_outbox_attempt_message", "media_id", "seq", "id"),
    )

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    media_id: Mapped[str] = mapped_column(String(16))
    seq: Mapped[int] = mapped_column(Integer)
    at: Mapped[float] = mapped_column(Double)
    duration: Mapped[float] = mapped_column(Double)
    verdict: Mapped[str] = mapped_column(String(16))
    status: Mapped[int | None] = mapped_column(Integer)
    detail: Mapped[str] = mapped_column(Text)
    excerpt: Mapped[str] = mapped_column(Text)


class OutboxCircuit(Base):
    """The circuit breaker of one endpoint, shared by all dispatchers and kept across restarts.

    While it is not closed, one probe at a time is sent, the next one after `retry_at`. `failures` counts the opening
    and the failed probes since. `refusing_since` is set if the endpoint refuses every message: streams parked since
    then are unparked when the circuit closes.
    """

    __tablename__ = "outbox_circuit"
    __table_args__ = (
        CheckConstraint("state IN ('closed', 'open', 'half-open')", name="state_allowed"),
        CheckConstraint("(state = 'closed') = (retry_at IS NULL)", name="open_has_retry_at"),
        CheckConstraint("failures >= 0", name="failures_not_negative"),
    )

    endpoint: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[str] = mapped_column(String(9))
    failures: Mapped[int] = mapped_column(Integer)
    retry_at: Mapped[float | None] = mapped_column(Double)
    reason: Mapped[str | None] = mapped_column(Text)
    opened_at: Mapped[float | None] = mapped_column(Double)
    refusing_since: Mapped[float | None] = mapped_column(Double)


class OutboxHold(Base):
    """A user whose messages to an endpoint are suspended until `until`, when one of them is sent as a probe."""

    __tablename__ = "outbox_hold"
    __table_args__ = (CheckConstraint("failures >= 1", name="failures_from_one"),)

    endpoint: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    since: Mapped[float] = mapped_column(Double)
    until: Mapped[float] = mapped_column(Double)
    failures: Mapped[int] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(Text)
