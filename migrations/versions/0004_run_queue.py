"""Runs that wait by the hundred thousand, that yield and go on, and that are cancelled.

A claim finds its run by indexes, whatever waits; what a run has found counts from the claim that began it.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

UNDER_WAY = sa.text("state IN ('queued', 'running')")
RUNNING = sa.text("state = 'running'")
FAILURES = ["undecodable", "too-large", "detector"]


def upgrade() -> None:
    op.add_column("detection_run", sa.Column("claimed_at", sa.Double(), nullable=True))
    op.add_column("detection_run", sa.Column("position", sa.Text(), nullable=True))
    for name in ("boxes_done", "results_epoch"):
        op.add_column("detection_run", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE detection_run SET claimed_at = started_at, results_epoch = lease_epoch,"
        " boxes_done = (SELECT count(*) FROM detection WHERE detection.run_id = detection_run.id)"
    )
    op.drop_index("ix_detection_run_waiting", "detection_run")
    with op.batch_alter_table("detection_run") as batch_op:
        for name in ("boxes_done", "results_epoch"):
            batch_op.alter_column(name, existing_type=sa.Integer(), server_default=None)
        _replace_checks(batch_op, [*FAILURES, "cancelled"], "frames_done >= 0 AND boxes_done >= 0")
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
    op.execute("UPDATE detection_run SET failure = 'detector' WHERE failure = 'cancelled'")
    # What waits with a position has results, of which the schema below knows nothing: it begins anew.
    op.execute(
        "DELETE FROM detection WHERE run_id IN"
        " (SELECT id FROM detection_run WHERE state = 'queued' AND position IS NOT NULL)"
    )
    op.execute("UPDATE detection_run SET frames_done = 0, packets_skipped = 0 WHERE state = 'queued'")
    with op.batch_alter_table("detection_run") as batch_op:
        _replace_checks(batch_op, FAILURES, "frames_done >= 0")
        for name in ("claimed_at", "position", "boxes_done", "results_epoch"):
            batch_op.drop_column(name)


def _replace_checks(batch_op: Any, failures: list[str], frames: str) -> None:
    for name in ("failure_allowed", "frames_not_negative"):
        batch_op.drop_constraint(op.f(f"ck_detection_run_{name}"), type_="check")
    listed = ", ".join(f"'{failure}'" for failure in failures)
    batch_op.create_check_constraint(op.f("ck_detection_run_failure_allowed"), f"failure IN ({listed})")
    batch_op.create_check_constraint(op.f("ck_detection_run_frames_not_negative"), frames)
