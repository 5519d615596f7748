"""What is missing of a damaged picture, and the number in its video of each frame on which something was found."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("detection_run", sa.Column("warnings", sa.JSON(), nullable=True))
    op.add_column("detection", sa.Column("source_frame", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE detection SET source_frame = 0 WHERE run_id IN (SELECT detection_run.id FROM detection_run"
        " JOIN media ON media.id = detection_run.media_id WHERE media.media_type = 'Image')"
    )


def downgrade() -> None:
    op.drop_column("detection", "source_frame")
    op.drop_column("detection_run", "warnings")
