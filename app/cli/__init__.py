"""The commands: `flask outbox …`, `flask media …` and `flask token`."""

import click

from app.cli.media import media
from app.cli.media_records import list_media, show_media
from app.cli.outbox import outbox
from app.cli.token import token

for command in (list_media, show_media):
    media.add_command(command)

COMMANDS: tuple[click.Command, ...] = (outbox, media, token)
"""What the factory gives to `flask`."""


def looks_for_a_command() -> bool:
    """Whether the application is being loaded because `flask` wants to know its commands, and for nothing else yet.

    Its own commands (`routes`, `run`, `shell`) need none of ours, and load the application when they run.
    """
    context = click.get_current_context(silent=True)
    return context is not None and context.parent is None
