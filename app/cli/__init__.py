"""The commands `flask detect`, `flask outbox`, `flask media` and `flask token`."""

import click

from app.cli.detect.cancel import cancel
from app.cli.detect.file import detect_file
from app.cli.detect.group import detect
from app.cli.media.accept_folders import accept_folders
from app.cli.media.group import media
from app.cli.media.records import list_media, show_media
from app.cli.media.relocate import relocate
from app.cli.media.upload import upload
from app.cli.media.verify import verify
from app.cli.outbox.group import outbox
from app.cli.outbox.resend import resend
from app.cli.outbox.verify import verify as verify_outbox
from app.cli.token import token

for command in (detect_file, cancel):
    detect.add_command(command)
for command in (accept_folders, list_media, relocate, show_media, upload, verify):
    media.add_command(command)
for command in (resend, verify_outbox):
    outbox.add_command(command)

COMMANDS: tuple[click.Command, ...] = (outbox, media, detect, token)
"""The commands that the factory adds to `flask`."""


def is_resolving_command() -> bool:
    """Return whether `flask` imports the application only to resolve one of these commands.

    The command's own context exists only after it was resolved.
    """
    context = click.get_current_context(silent=True)
    return context is not None and context.parent is None
