"""Figures in several rows each, so that those who count never wait for each other."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("outbox_tally") as batch_op:
        batch_op.add_column(sa.Column("slot", sa.BigInteger(), nullable=False, server_default="0"))
        batch_op.drop_constraint("pk_outbox_tally", type_="primary")
        batch_op.create_primary_key("pk_outbox_tally", ["name", "slot"])


def downgrade() -> None:
    op.execute(
        "UPDATE outbox_tally SET value = (SELECT sum(other.value) FROM outbox_tally AS other"
        " WHERE other.name = outbox_tally.name)"
    )
    op.execute(
        "DELETE FROM outbox_tally WHERE slot > (SELECT min(other.slot) FROM outbox_tally AS other"
        " WHERE other.name = outbox_tally.name)"
    )
    with op.batch_alter_table("outbox_tally") as batch_op:
        batch_op.drop_constraint("pk_outbox_tally", type_="primary")
        batch_op.drop_column("slot")
        batch_op.create_primary_key("pk_outbox_tally", ["name"])
