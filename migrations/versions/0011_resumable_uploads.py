"""Uploads that come in parts: how far each has come, and what came of it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "resumable_upload",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(7), nullable=False),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("upload_metadata", sa.Text(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=True),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("takeovers", sa.Integer(), nullable=False),
        sa.Column("parts", sa.Text(), nullable=True),
        sa.Column("media_id", sa.String(16), nullable=True),
        sa.Column("duplicate", sa.Boolean(), nullable=True),
        sa.Column("error", sa.String(32), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.CheckConstraint("kind IN ('single', 'partial', 'final')", name=op.f("ck_resumable_upload_kind_allowed")),
        sa.CheckConstraint(
            "state IN ('receiving', 'complete', 'failed')", name=op.f("ck_resumable_upload_state_allowed")
        ),
        sa.CheckConstraint(
            "(state = 'receiving') = (file IS NOT NULL)", name=op.f("ck_resumable_upload_receiving_has_file")
        ),
        sa.CheckConstraint(
            "(state = 'failed') = (error IS NOT NULL)", name=op.f("ck_resumable_upload_failed_has_error")
        ),
        sa.CheckConstraint(
            "received >= 0 AND (length IS NULL OR received <= length)",
            name=op.f("ck_resumable_upload_received_within_length"),
        ),
        sa.CheckConstraint("length(user_id) BETWEEN 1 AND 255", name=op.f("ck_resumable_upload_user_present")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resumable_upload")),
    )
    op.create_index("uq_resumable_upload_file", "resumable_upload", ["file"], unique=True)
    op.create_index("ix_resumable_upload_user", "resumable_upload", ["user_id", "state"])
    op.create_index("ix_resumable_upload_expires_at", "resumable_upload", ["expires_at"])


def downgrade() -> None:
    op.drop_table("resumable_upload")
