"""Standard names for columns and a table: attempts, outcome_unknown, waiting_since, counter_shard."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

COLUMNS = (
    ("outbox_stream", "uncertain", "outcome_unknown"),
    ("outbox_stream", "head_since", "waiting_since"),
    ("detection_run", "tries", "attempts"),
)
BLOCKED = sa.text("waiting_kind IS NOT NULL")


def upgrade() -> None:
    for table, old, new in COLUMNS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    _rename_index("ix_detection_run_put_off", "ix_detection_run_blocked")
    _move_counters("outbox_tally", "slot", "counter_shard", "shard")


def downgrade() -> None:
    _move_counters("counter_shard", "shard", "outbox_tally", "slot")
    _rename_index("ix_detection_run_blocked", "ix_detection_run_put_off")
    for table, old, new in COLUMNS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}")


def _rename_index(old: str, new: str) -> None:
    op.drop_index(old, table_name="detection_run")
    op.create_index(new, "detection_run", ["waiting_kind", "id"], sqlite_where=BLOCKED, postgresql_where=BLOCKED)


def _move_counters(old_table: str, old_column: str, new_table: str, new_column: str) -> None:
    """Copy the table, whose constraints carry its name; it has a row for each counter and concurrent writer."""
    op.create_table(
        new_table,
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column(new_column, sa.BigInteger(), nullable=False, server_default="0", autoincrement=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.CheckConstraint("value >= 0", name=op.f(f"ck_{new_table}_value_not_negative")),
        sa.PrimaryKeyConstraint("name", new_column, name=op.f(f"pk_{new_table}")),
    )
    op.execute(f"INSERT INTO {new_table} (name, {new_column}, value) SELECT name, {old_column}, value FROM {old_table}")  # noqa: S608 (names from this file)
    op.drop_table(old_table)
