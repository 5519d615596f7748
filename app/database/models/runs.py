"""The tables of detection runs and their results."""

from enum import StrEnum

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.database.models.base import Base, BigId


class RunState(StrEnum):
    """The state of a detection run."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class RunFailure(StrEnum):
    """Why a run failed."""

    UNDECODABLE = "undecodable"  # the decoder rejects the file
    TOO_LARGE = "too-large"  # the file exceeds a limit of the decoder
    DETECTOR = "detector"  # the detector died of the file, at every attempt
    CANCELLED = "cancelled"  # a person ended the run


ACTIVE_RUN = text("state IN ('queued', 'running')")
RUNNING_RUN = text("state = 'running'")
BLOCKED_RUN = text("waiting_kind IS NOT NULL")


class DetectionRun(Base):
    """One run of a detector over one media item, requested by `user_id`.

    A running run is leased to the process that claimed it at `claimed_at`. Its results are those found since the claim
    with the epoch `results_epoch`. A run that yielded waits with a `position`, from which its next claim continues;
    every other claim deletes earlier results and begins anew. A house fault of the kind `waiting_kind` blocks the run
    from being claimed, for the reason `waiting_for`.
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
    """One object found in one frame of a run.

    `source_frame` is the frame's number in its video; NULL for videos processed before migration 0003.
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
