"""A run that waits says for what: a fault that is not its media item's."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

WAITING = sa.text("waiting_kind IS NOT NULL")
KINDS = "waiting_kind IN ('missing', 'file', 'folder', 'detector', 'model', 'results')"


def upgrade() -> None:
    with op.batch_alter_table("detection_run") as batch_op:
        batch_op.add_column(sa.Column("waiting_kind", sa.String(8), nullable=True))
        batch_op.add_column(sa.Column("waiting_for", sa.Text(), nullable=True))
        batch_op.create_check_constraint(op.f("ck_detection_run_waiting_kind_allowed"), KINDS)
        batch_op.create_check_constraint(
            op.f("ck_detection_run_waiting_has_reason"), "(waiting_kind IS NULL) = (waiting_for IS NULL)"
        )
        batch_op.create_check_constraint(
            op.f("ck_detection_run_waiting_is_queued"), "waiting_kind IS NULL OR state = 'queued'"
        )
    op.create_index(
        "ix_detection_run_put_off",
        "detection_run",
        ["waiting_kind", "id"],
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    )


def downgrade() -> None:
    op.drop_index("ix_detection_run_put_off", table_name="detection_run")
    with op.batch_alter_table("detection_run") as batch_op:
        for name in ("waiting_is_queued", "waiting_has_reason", "waiting_kind_allowed"):
            batch_op.drop_constraint(op.f(f"ck_detection_run_{name}"), type_="check")
        for name in ("waiting_for", "waiting_kind"):
            batch_op.drop_column(name)
