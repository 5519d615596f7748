"""When each run was claimed last, and indexes by which a claim costs the same however many runs wait."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

UNDER_WAY = sa.text("state IN ('queued', 'running')")
RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    op.add_column("detection_run", sa.Column("claimed_at", sa.Double(), nullable=True))
    op.execute("UPDATE detection_run SET claimed_at = started_at")
    op.drop_index("ix_detection_run_waiting", "detection_run")
    op.create_index(
        "ix_detection_run_waiting",
        "detection_run",
        ["user_id", "id"],
        sqlite_where=UNDER_WAY,
        postgresql_where=UNDER_WAY,
    )
    op.create_index(
        "ix_detection_run_running", "detection_run", ["user_id"], sqlite_where=RUNNING, postgresql_where=RUNNING
    )
    op.create_index("ix_detection_run_turn", "detection_run", ["user_id", "claimed_at"])


def downgrade() -> None:
    for name in ("ix_detection_run_turn", "ix_detection_run_running", "ix_detection_run_waiting"):
        op.drop_index(name, "detection_run")
    op.create_index(
        "ix_detection_run_waiting", "detection_run", ["id"], sqlite_where=UNDER_WAY, postgresql_where=UNDER_WAY
    )
    with op.batch_alter_table("detection_run") as batch_op:
        batch_op.drop_column("claimed_at")
