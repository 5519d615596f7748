"""An index by which a filtered list of media costs what the list costs, however rare what it asks for is."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_index("ix_media_filtered", "media", ["media_status", "media_type", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_media_filtered", "media")
