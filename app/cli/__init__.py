"""The admin commands: `flask outbox …` and `flask media …`."""

from app.cli.media import media
from app.cli.outbox import outbox

GROUPS = (outbox, media)
"""What the factory gives to `flask`."""
