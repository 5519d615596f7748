"""The first tables: media, detection runs and their results, and the outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "media",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("media_type", sa.String(length=5), nullable=False),
        sa.Column("media_status", sa.SmallInteger(), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("media_type IN ('Video', 'Image')", name=op.f("ck_media_type_allowed")),
        sa.CheckConstraint("length(id) = 16", name=op.f("ck_media_id_length")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 255", name=op.f("ck_media_name_present")),
        sa.CheckConstraint("length(user_id) BETWEEN 1 AND 255", name=op.f("ck_media_user_present")),
        sa.CheckConstraint("media_status IN (1, 2, 3, 6)", name=op.f("ck_media_status_allowed")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_media_size_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_media")),
    )
    with op.batch_alter_table("media", schema=None) as batch_op:
        batch_op.create_index("ix_media_newest", ["created_at", "id"], unique=False)
        batch_op.create_index("uq_media_path", ["path"], unique=True)

    op.create_table(
        "outbox_tally",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.CheckConstraint("value >= 0", name=op.f("ck_outbox_tally_value_not_negative")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_outbox_tally")),
    )
    op.create_table(
        "outbox_gate",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=6), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("closed_until", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'closed') = (closed_until IS NOT NULL)", name=op.f("ck_outbox_gate_closed_has_until")
        ),
        sa.CheckConstraint("state IN ('open', 'closed')", name=op.f("ck_outbox_gate_state_allowed")),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_outbox_gate_failures_not_negative")),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_outbox_gate")),
    )
    op.create_table(
        "detection_run",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(always=False), nullable=False
        ),
        sa.Column("media_id", sa.String(length=16), nullable=False),
        sa.Column("detector", sa.String(length=255), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("frame_interval", sa.Double(), nullable=False),
        sa.Column("state", sa.String(length=7), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("lease_epoch", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=128), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("frames_done", sa.Integer(), nullable=False),
        sa.Column("frames_total", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("failure", sa.String(length=11), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.CheckConstraint(
            "(state = 'failed') = (failure IS NOT NULL)", name=op.f("ck_detection_run_failed_has_failure")
        ),
        sa.CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_detection_run_running_is_leased")
        ),
        sa.CheckConstraint(
            "(state IN ('done', 'failed')) = (finished_at IS NOT NULL)", name=op.f("ck_detection_run_ended_has_time")
        ),
        sa.CheckConstraint(
            "failure IN ('undecodable', 'too-large', 'detector')", name=op.f("ck_detection_run_failure_allowed")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed')", name=op.f("ck_detection_run_state_allowed")
        ),
        sa.CheckConstraint("frames_done >= 0", name=op.f("ck_detection_run_frames_not_negative")),
        sa.ForeignKeyConstraint(["media_id"], ["media.id"], name=op.f("fk_detection_run_media_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_detection_run")),
    )
    with op.batch_alter_table("detection_run", schema=None) as batch_op:
        batch_op.create_index("ix_detection_run_media", ["media_id", "id"], unique=False)
        batch_op.create_index(
            "ix_detection_run_waiting",
            ["id"],
            unique=False,
            sqlite_where=sa.text("state IN ('queued', 'running')"),
            postgresql_where=sa.text("state IN ('queued', 'running')"),
        )
        batch_op.create_index(
            "uq_detection_run_active",
            ["media_id"],
            unique=True,
            sqlite_where=sa.text("state IN ('queued', 'running')"),
            postgresql_where=sa.text("state IN ('queued', 'running')"),
        )

    op.create_table(
        "outbox_stream",
        sa.Column("media_id", sa.String(length=16), nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("acked_seq", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("lease_epoch", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=128), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("refusals", sa.Integer(), nullable=False),
        sa.Column("uncertain", sa.Boolean(), nullable=False),
        sa.Column("head_since", sa.Double(), nullable=True),
        sa.Column("parked_at", sa.Double(), nullable=True),
        sa.Column("park_reason", sa.Text(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(acked_seq = last_seq) = (due_at IS NULL AND parked_at IS NULL)",
            name=op.f("ck_outbox_stream_waiting_is_due_or_parked"),
        ),
        sa.CheckConstraint(
            "(acked_seq = last_seq) = (head_since IS NULL)", name=op.f("ck_outbox_stream_waiting_has_since")
        ),
        sa.CheckConstraint("acked_seq BETWEEN 0 AND last_seq", name=op.f("ck_outbox_stream_acked_within_last")),
        sa.CheckConstraint("attempts >= 0 AND refusals >= 0", name=op.f("ck_outbox_stream_attempts_not_negative")),
        sa.CheckConstraint(
            "parked_at IS NULL OR (due_at IS NULL AND lease_owner IS NULL)",
            name=op.f("ck_outbox_stream_parked_is_not_due"),
        ),
        sa.ForeignKeyConstraint(["media_id"], ["media.id"], name=op.f("fk_outbox_stream_media_id")),
        sa.PrimaryKeyConstraint("media_id", name=op.f("pk_outbox_stream")),
    )
    with op.batch_alter_table("outbox_stream", schema=None) as batch_op:
        batch_op.create_index(
            "ix_outbox_stream_due",
            ["due_at"],
            unique=False,
            sqlite_where=sa.text("due_at IS NOT NULL"),
            postgresql_where=sa.text("due_at IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_outbox_stream_parked",
            ["parked_at"],
            unique=False,
            sqlite_where=sa.text("parked_at IS NOT NULL"),
            postgresql_where=sa.text("parked_at IS NOT NULL"),
        )

    op.create_table(
        "detection",
        sa.Column("run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("class_num", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=255), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("center_x", sa.Double(), nullable=False),
        sa.Column("center_y", sa.Double(), nullable=False),
        sa.Column("width", sa.Double(), nullable=False),
        sa.Column("height", sa.Double(), nullable=False),
        sa.CheckConstraint("confidence BETWEEN 0 AND 1", name=op.f("ck_detection_confidence_is_fraction")),
        sa.CheckConstraint("frame >= 0 AND ordinal >= 0", name=op.f("ck_detection_position_not_negative")),
        sa.ForeignKeyConstraint(["run_id"], ["detection_run.id"], name=op.f("fk_detection_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "frame", "ordinal", name=op.f("pk_detection")),
    )
    op.create_table(
        "outbox_message",
        sa.Column("media_id", sa.String(length=16), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=6), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("delivered_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.String(length=10), nullable=True),
        sa.CheckConstraint("kind IN ('create', 'status')", name=op.f("ck_outbox_message_kind_allowed")),
        sa.CheckConstraint(
            "outcome IN ('accepted', 'duplicate', 'superseded', 'skipped')",
            name=op.f("ck_outbox_message_outcome_allowed"),
        ),
        sa.CheckConstraint(
            "(delivered_at IS NULL) = (outcome IS NULL)", name=op.f("ck_outbox_message_delivered_has_outcome")
        ),
        sa.CheckConstraint("seq >= 1", name=op.f("ck_outbox_message_seq_from_one")),
        sa.ForeignKeyConstraint(["media_id"], ["outbox_stream.media_id"], name=op.f("fk_outbox_message_media_id")),
        sa.PrimaryKeyConstraint("media_id", "seq", name=op.f("pk_outbox_message")),
    )
    with op.batch_alter_table("outbox_message", schema=None) as batch_op:
        batch_op.create_index(
            "ix_outbox_message_delivered",
            ["delivered_at"],
            unique=False,
            sqlite_where=sa.text("delivered_at IS NOT NULL"),
            postgresql_where=sa.text("delivered_at IS NOT NULL"),
        )

    op.create_table(
        "outbox_attempt",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(always=False), nullable=False
        ),
        sa.Column("media_id", sa.String(length=16), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("duration", sa.Double(), nullable=False),
        sa.Column("verdict", sa.String(length=10), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("excerpt", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["media_id", "seq"],
            ["outbox_message.media_id", "outbox_message.seq"],
            name=op.f("fk_outbox_attempt_media_id_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_attempt")),
    )
    with op.batch_alter_table("outbox_attempt", schema=None) as batch_op:
        batch_op.create_index("ix_outbox_attempt_message", ["media_id", "seq", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("outbox_attempt", schema=None) as batch_op:
        batch_op.drop_index("ix_outbox_attempt_message")

    op.drop_table("outbox_attempt")
    with op.batch_alter_table("outbox_message", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_outbox_message_delivered",
            sqlite_where=sa.text("delivered_at IS NOT NULL"),
            postgresql_where=sa.text("delivered_at IS NOT NULL"),
        )

    op.drop_table("outbox_message")
    op.drop_table("detection")
    with op.batch_alter_table("outbox_stream", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_outbox_stream_parked",
            sqlite_where=sa.text("parked_at IS NOT NULL"),
            postgresql_where=sa.text("parked_at IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_outbox_stream_due",
            sqlite_where=sa.text("due_at IS NOT NULL"),
            postgresql_where=sa.text("due_at IS NOT NULL"),
        )

    op.drop_table("outbox_stream")
    with op.batch_alter_table("detection_run", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_detection_run_active",
            sqlite_where=sa.text("state IN ('queued', 'running')"),
            postgresql_where=sa.text("state IN ('queued', 'running')"),
        )
        batch_op.drop_index(
            "ix_detection_run_waiting",
            sqlite_where=sa.text("state IN ('queued', 'running')"),
            postgresql_where=sa.text("state IN ('queued', 'running')"),
        )
        batch_op.drop_index("ix_detection_run_media")

    op.drop_table("detection_run")
    op.drop_table("outbox_tally")
    op.drop_table("outbox_gate")
    with op.batch_alter_table("media", schema=None) as batch_op:
        batch_op.drop_index("uq_media_path")
        batch_op.drop_index("ix_media_newest")

    op.drop_table("media")
