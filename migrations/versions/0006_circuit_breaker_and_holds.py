"""The gate becomes a circuit breaker; users are held; attempts, failures and counted attempts are told apart."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

DUE = sa.text("due_at IS NOT NULL")
OLD_VERDICT = {"unfit": "close_gate", "hold": "close_gate", "refused": "park", "retry_limited": "retry"}


def upgrade() -> None:
    _upgrade_streams()
    with op.batch_alter_table("outbox_attempt") as batch_op:
        batch_op.alter_column("verdict", existing_type=sa.String(length=10), type_=sa.String(length=16))
    op.execute("UPDATE outbox_attempt SET verdict = 'unfit' WHERE verdict = 'close_gate'")
    op.execute(
        "UPDATE outbox_tally SET name = replace(name, 'close_gate', 'unfit') WHERE name LIKE 'attempts_%close_gate'"
    )
    op.create_table(
        "outbox_circuit",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=9), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.Double(), nullable=True),
        sa.Column("refusing_since", sa.Double(), nullable=True),
        sa.CheckConstraint("state IN ('closed', 'open', 'half-open')", name=op.f("ck_outbox_circuit_state_allowed")),
        sa.CheckConstraint("(state = 'closed') = (retry_at IS NULL)", name=op.f("ck_outbox_circuit_open_has_retry_at")),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_outbox_circuit_failures_not_negative")),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_outbox_circuit")),
    )
    op.execute(
        "INSERT INTO outbox_circuit (endpoint, state, failures, retry_at, reason, opened_at)"
        " SELECT endpoint, CASE state WHEN 'closed' THEN 'open' ELSE 'closed' END, failures, closed_until, reason,"
        " closed_until FROM outbox_gate"
    )
    op.drop_table("outbox_gate")
    op.create_table(
        "outbox_hold",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.CheckConstraint("failures >= 1", name=op.f("ck_outbox_hold_failures_from_one")),
        sa.PrimaryKeyConstraint("endpoint", "user_id", name=op.f("pk_outbox_hold")),
    )


def _upgrade_streams() -> None:
    op.add_column("outbox_stream", sa.Column("user_id", sa.String(length=255), nullable=True))
    op.add_column("outbox_stream", sa.Column("failures", sa.Integer(), nullable=True))
    op.add_column("outbox_stream", sa.Column("refused_since", sa.Double(), nullable=True))
    op.execute(
        "UPDATE outbox_stream SET failures = attempts,"
        " user_id = (SELECT media.user_id FROM media WHERE media.id = outbox_stream.media_id),"
        " refused_since = CASE WHEN refusals > 0 THEN coalesce(parked_at, head_since) END"
    )
    op.execute("UPDATE outbox_stream SET attempts = attempts + 1 WHERE parked_at IS NOT NULL")
    with op.batch_alter_table("outbox_stream") as batch_op:
        batch_op.drop_constraint(op.f("ck_outbox_stream_attempts_not_negative"), type_="check")
        batch_op.alter_column("user_id", existing_type=sa.String(length=255), nullable=False)
        batch_op.alter_column("failures", existing_type=sa.Integer(), nullable=False)
        batch_op.alter_column("refusals", existing_type=sa.Integer(), new_column_name="counted_attempts")
    with op.batch_alter_table("outbox_stream") as batch_op:
        batch_op.create_check_constraint(
            op.f("ck_outbox_stream_attempts_not_negative"), "attempts >= 0 AND failures >= 0 AND counted_attempts >= 0"
        )
        batch_op.create_index("ix_outbox_stream_user", ["user_id", "due_at"], sqlite_where=DUE, postgresql_where=DUE)


def downgrade() -> None:
    op.drop_table("outbox_hold")
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
    op.execute(
        "INSERT INTO outbox_gate (endpoint, state, failures, closed_until, reason)"
        " SELECT endpoint, CASE state WHEN 'closed' THEN 'open' ELSE 'closed' END, failures, retry_at, reason"
        " FROM outbox_circuit"
    )
    op.drop_table("outbox_circuit")
    for new, old in OLD_VERDICT.items():
        op.execute(f"UPDATE outbox_attempt SET verdict = '{old}' WHERE verdict = '{new}'")  # noqa: S608
    _downgrade_figures()
    with op.batch_alter_table("outbox_attempt") as batch_op:
        batch_op.alter_column("verdict", existing_type=sa.String(length=16), type_=sa.String(length=10))
    _downgrade_streams()


def _downgrade_figures() -> None:
    """Attempts of verdicts that the code before does not know count as those that it has for them."""
    figures = sa.table("outbox_tally", sa.column("name", sa.String), sa.column("value", sa.Double))
    connection = op.get_bind()
    for name, value in connection.execute(sa.select(figures).where(figures.c.name.like("attempts:%"))).all():
        part, kind, verdict = name.split(":")
        if verdict not in OLD_VERDICT:
            continue
        into = ":".join((part, kind, OLD_VERDICT[verdict]))
        connection.execute(sa.delete(figures).where(figures.c.name == name))
        added = connection.execute(
            sa.update(figures).where(figures.c.name == into).values(value=figures.c.value + value)
        )
        if not added.rowcount:
            connection.execute(sa.insert(figures).values(name=into, value=value))


def _downgrade_streams() -> None:
    op.execute("UPDATE outbox_stream SET attempts = failures")
    with op.batch_alter_table("outbox_stream") as batch_op:
        batch_op.drop_index("ix_outbox_stream_user", sqlite_where=DUE, postgresql_where=DUE)
        batch_op.drop_constraint(op.f("ck_outbox_stream_attempts_not_negative"), type_="check")
        batch_op.alter_column("counted_attempts", existing_type=sa.Integer(), new_column_name="refusals")
        batch_op.drop_column("refused_since")
        batch_op.drop_column("failures")
        batch_op.drop_column("user_id")
    with op.batch_alter_table("outbox_stream") as batch_op:
        batch_op.create_check_constraint(
            op.f("ck_outbox_stream_attempts_not_negative"), "attempts >= 0 AND refusals >= 0"
        )
