"""The tables: media, detection runs and their results, and the outbox.

Times are seconds since 1970 UTC on the database's clock. Each rule that must never be broken is a named constraint,
so that no code of ours, now or later, can store what the contract does not allow.
"""

from enum import IntEnum, StrEnum
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Every table's base; constraints get predictable names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


BigId = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER keys count up by themselves there


class MediaStatus(IntEnum):
    """The statuses this service writes; 4 and 5 belong to other services."""

    NEW = 1
    AI_PROCESSING = 2
    AI_PROCESSED = 3
    ERROR = 6


class RunState(StrEnum):
    """Where a detection run is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class RunFailure(StrEnum):
    """Whose fault a failed run is."""

    UNDECODABLE = "undecodable"  # the media's: the decoder rejects it
    TOO_LARGE = "too-large"  # the media's: beyond a limit of the decoder
    DETECTOR = "detector"  # ours: the detector broke, more than once
    CANCELLED = "cancelled"  # nobody's: a person ended it


ACTIVE_RUN = text("state IN ('queued', 'running')")
RUNNING_RUN = text("state = 'running'")
BLOCKED_RUN = text("waiting_kind IS NOT NULL")


class Media(Base):
    """A stored file and what is known of it.

    `checksum` is the XXH3-128 of its bytes as 32 hex digits, kept since the schema's second version.
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


class DetectionRun(Base):
    """One run of a detector over one media, asked for by `user_id`; while running it is leased to one process, which
    claimed it at `claimed_at`.

    What is found counts from the claim whose epoch is `results_epoch`. A run that yielded waits with a `position`, from
    which its next claim goes on; any other claim begins anew and forgets what was found. One with a `waiting_kind` is
    not claimed: a fault that is not its media item's keeps it, and `waiting_for` says which.
    """

    __tablename__ = "detection_run"
    __table_args__ = (
        CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name="state_allowed"),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="running_is_leased"),
        CheckConstraint("(state IN ('done', 'failed')) = (finished_at IS NOT NULL)", name="ended_has_time"),
        CheckConstraint("(state = 'failed') = (failure IS NOT NULL)", name="failed_has_failure"),
        CheckConstraint("failure IN ('undecodable', 'too-large', 'detector', 'cancelled')", name="failure_allowed"),
        CheckConstraint("frames_done >= 0 AND boxes_done >= 0", name="frames_not_negative"),
        CheckConstraint(
            "waiting_kind IN ('missing', 'file', 'folder', 'detector', 'model', 'results')", name="waiting_kind_allowed"
        ),
        CheckConstraint("(waiting_kind IS NULL) = (waiting_for IS NULL)", name="waiting_has_reason"),
        CheckConstraint("waiting_kind IS NULL OR state = 'queued'", name="waiting_is_queued"),
        Index("ix_detection_run_blocked", "waiting_kind", "id", sqlite_where=BLOCKED_RUN, postgresql_where=BLOCKED_RUN),
        Index("uq_detection_run_active", "media_id", unique=True, sqlite_where=ACTIVE_RUN, postgresql_where=ACTIVE_RUN),
        Index("ix_detection_run_waiting", "user_id", "id", sqlite_where=ACTIVE_RUN, postgresql_where=ACTIVE_RUN),
        Index("ix_detection_run_running", "user_id", sqlite_where=RUNNING_RUN, postgresql_where=RUNNING_RUN),
        Index("ix_detection_run_turn", "user_id", "claimed_at"),
        Index("ix_detection_run_media", "media_id", "id"),
        Index(
            "ix_detection_run_leased",
            "lease_until",
            sqlite_where=text("lease_until IS NOT NULL"),
            postgresql_where=text("lease_until IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, Identity(), primary_key=True)
    media_id: Mapped[str] = mapped_column(ForeignKey("media.id"))
    user_id: Mapped[str] = mapped_column(String(255))
    detector: Mapped[str] = mapped_column(String(255))
    confidence: Mapped[float] = mapped_column(Double)
    frame_interval: Mapped[float] = mapped_column(Double)
    state: Mapped[str] = mapped_column(String(7))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    lease_epoch: Mapped[int] = mapped_column(Integer, default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[float | None] = mapped_column(Double)
    frames_done: Mapped[int] = mapped_column(Integer, default=0)
    frames_total: Mapped[int | None] = mapped_column(Integer)
    boxes_done: Mapped[int] = mapped_column(Integer, default=0)
    results_epoch: Mapped[int] = mapped_column(Integer, default=0)
    position: Mapped[str | None] = mapped_column(Text)
    packets_skipped: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[float] = mapped_column(Double)
    claimed_at: Mapped[float | None] = mapped_column(Double)
    started_at: Mapped[float | None] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)
    failure: Mapped[str | None] = mapped_column(String(11))
    error: Mapped[str | None] = mapped_column(Text)
    warnings: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    request_id: Mapped[str | None] = mapped_column(String(64))
    waiting_kind: Mapped[str | None] = mapped_column(String(8))
    waiting_for: Mapped[str | None] = mapped_column(Text)


class Detection(Base):
    """One object found on one frame of a run.

    `source_frame` is the frame's number in its video, kept since the schema's third version.
    """

    __tablename__ = "detection"
    __table_args__ = (
        CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence_is_fraction"),
        CheckConstraint("frame >= 0 AND ordinal >= 0", name="position_not_negative"),
    )

    run_id: Mapped[int] = mapped_column(ForeignKey("detection_run.id", ondelete="CASCADE"), primary_key=True)
    frame: Mapped[int] = mapped_column(Integer, primary_key=True)
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True)
    time: Mapped[float] = mapped_column(Double)
    source_frame: Mapped[int | None] = mapped_column(Integer)
    class_num: Mapped[int] = mapped_column(Integer)
    label: Mapped[str] = mapped_column(String(255))
    confidence: Mapped[float] = mapped_column(Double)
    center_x: Mapped[float] = mapped_column(Double)
    center_y: Mapped[float] = mapped_column(Double)
    width: Mapped[float] = mapped_column(Double)
    height: Mapped[float] = mapped_column(Double)


class OutboxStream(Base):
    """The head of one media's messages.

    `due_at` is ready time, backoff and lease expiry in one: the stream may be claimed once it has passed, and an idle
    or parked stream has none. `attempts` counts all attempts of the head, `failures` those that its backoff grows by,
    and `counted_attempts` those that may not go on for ever, the first of which was answered at `refused_since`.
    `outcome_unknown` says that the head may have arrived although no answer came. `user_id` is the media item's user,
    whose hold keeps all of the user's streams from being claimed.
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
    """One message of a media; `delivered_at` and `outcome` are set together when it stops waiting.

    `changed_at` is the time of the change that the message reports, where that is not its own `created_at`.
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
    """One attempt to send one message, for the person who asks what happened."""

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

    While it is not closed one probe at a time may pass, the next once `retry_at` has passed. `failures` counts the
    opening and the failed probes since. `refusing_since` is set where everything is refused: what was parked from then
    on goes back when the circuit closes.
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
    """A user of whom nothing is sent to an endpoint until `until`, when one message at a time probes."""

    __tablename__ = "outbox_hold"
    __table_args__ = (CheckConstraint("failures >= 1", name="failures_from_one"),)

    endpoint: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    since: Mapped[float] = mapped_column(Double)
    until: Mapped[float] = mapped_column(Double)
    failures: Mapped[int] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(Text)


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
    """A secret that every process on this database knows and nobody else: 32 random bytes as hex digits."""

    __tablename__ = "shared_key"
    __table_args__ = (CheckConstraint("length(secret) = 64", name="secret_length"),)

    purpose: Mapped[str] = mapped_column(String(32), primary_key=True)
    secret: Mapped[str] = mapped_column(String(64))


class DatabaseInstance(Base):
    """The one row that says which database this is and how far its history has come.

    `instance_id` is also in the marker of each media folder, as are `epoch` and `counter`. The counter grows soon after
    messages are committed. The epoch grows each time that the database turns out to be behind a marker: it was restored
    from a copy, at `restored_at`, which stays until a person has resent what the annotations service lacks.
    `server_history` is the PostgreSQL server that it was last used with (`app.database.postgres_failover`).
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
    """A file that comes in parts: `received` of its `length` bytes are durable in `file`, a name in `.incoming/`.

    `length` is NULL until the client tells it. `upload_metadata` is what the client said of the file, as tus writes it.
    `takeovers` counts the requests that asked whoever was writing to stop. A `partial` upload becomes a piece of the
    `final` one whose `parts`, ids with spaces between, name it. Once ended, the row stays until `expires_at` and tells
    what came of it: the media item, or the class of the error and its text.
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
