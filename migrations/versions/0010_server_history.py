"""Which server's history the database was last used with, so that a failover is noticed."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("database_instance", sa.Column("server_history", sa.String(64), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("database_instance") as batch_op:
        batch_op.drop_column("server_history")
