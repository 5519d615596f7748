"""A checksum of each file, the person who asked for each run, and keys that all processes share."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("media", sa.Column("checksum", sa.String(length=32), nullable=True))

    op.add_column("detection_run", sa.Column("user_id", sa.String(length=255), nullable=True))
    op.add_column("detection_run", sa.Column("packets_skipped", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE detection_run SET user_id = (SELECT media.user_id FROM media WHERE media.id = detection_run.media_id)"
    )
    with op.batch_alter_table("detection_run") as batch_op:
        batch_op.alter_column("user_id", existing_type=sa.String(length=255), nullable=False)
        batch_op.alter_column("packets_skipped", existing_type=sa.Integer(), server_default=None)

    op.create_table(
        "shared_key",
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.CheckConstraint("length(secret) = 64", name=op.f("ck_shared_key_secret_length")),
        sa.PrimaryKeyConstraint("purpose", name=op.f("pk_shared_key")),
    )


def downgrade() -> None:
    op.drop_table("shared_key")
    with op.batch_alter_table("detection_run") as batch_op:
        batch_op.drop_column("packets_skipped")
        batch_op.drop_column("user_id")
    op.drop_column("media", "checksum")
