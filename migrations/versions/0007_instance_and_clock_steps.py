"""Which database this is and how far it has come; when a resent change happened; leases found without their backlog."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

LEASED_STREAMS = sa.text("lease_owner IS NOT NULL")
LEASED_RUNS = sa.text("lease_until IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "database_instance",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("instance_id", sa.String(length=36), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("restored_at", sa.Double(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_database_instance_single_row")),
        sa.CheckConstraint("length(instance_id) = 36", name=op.f("ck_database_instance_instance_id_length")),
        sa.CheckConstraint("epoch >= 1 AND counter >= 0", name=op.f("ck_database_instance_reached_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_database_instance")),
    )
    op.add_column("outbox_message", sa.Column("changed_at", sa.Double(), nullable=True))
    op.create_index(
        "ix_outbox_stream_leased",
        "outbox_stream",
        ["due_at"],
        sqlite_where=LEASED_STREAMS,
        postgresql_where=LEASED_STREAMS,
    )
    op.create_index(
        "ix_detection_run_leased",
        "detection_run",
        ["lease_until"],
        sqlite_where=LEASED_RUNS,
        postgresql_where=LEASED_RUNS,
    )


def downgrade() -> None:
    op.drop_index("ix_detection_run_leased", table_name="detection_run")
    op.drop_index("ix_outbox_stream_leased", table_name="outbox_stream")
    with op.batch_alter_table("outbox_message") as batch_op:
        batch_op.drop_column("changed_at")
    op.drop_table("database_instance")
