"""`flask detect`: detection in a process of its own.

A worker takes runs from the database, whichever process accepted them. It can run on any machine with the same database
and folders, and several share the work. The web process beside it has DETECTION=off or detects too.
"""

import click
from flask.cli import with_appcontext

from app.cli.background import check_database, run_until_stopped
from app.cli.error_handling import Group
from app.cli.output import note
from app.cli.usage import usage
from app.current import get_services
from app.errors import Unavailable
from app.runs.model_check import check_model
from app.storage.relocation import check_rows


@click.group(cls=Group)
def detect() -> None:
    """Run detection: on files, or on waiting runs."""


@detect.command(
    short_help="Process runs until SIGTERM.",
    epilog=usage("flask detect run", "DETECTION_WORKERS=4 flask detect run", exits={0: "stopped by SIGTERM"}),
)
@with_appcontext
def run() -> None:
    """Process runs, DETECTION_WORKERS at once, until SIGTERM. Runs under way are then handed back."""
    workers = get_services().settings.detection_workers
    check_model(get_services().settings)
    check_database()
    try:
        get_services().folders.open()
        check_rows(get_services().database, get_services().settings.media_folders)
    except Unavailable as error:  # the worker waits for an unavailable database
        note(str(error))
    run_until_stopped(
        [*get_services().detection(), *get_services().upkeep()],
        f"Processing runs, {workers} at once; SIGTERM stops it.",
    )
