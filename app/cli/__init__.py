"""The admin commands: `flask outbox …` and `flask media …`."""

import click

from app.cli.media import media
from app.cli.outbox import outbox

COMMANDS: tuple[click.Command, ...] = (outbox, media)
"""What the factory gives to `flask`."""


def looks_for_a_command() -> bool:
    """Whether the application is being loaded because `flask` wants to know its commands, and for nothing else yet.

    Its own commands (`routes`, `run`, `shell`) need none of ours, and load the application when they run.
    """
    context = click.get_current_context(silent=True)
    return context is not None and context.parent is None
