"""`flask detect …`: detection as a process of its own.

A worker takes runs from the database, whichever process accepted them, so it may stand on any machine that has the
same database and the same folders; several at once share the work. The web process beside it has DETECTION=off, or
goes on detecting too.
"""

import click
from flask.cli import with_appcontext

from app.cli.background import check_database, run_until_stopped
from app.cli.faults import Group
from app.cli.output import note
from app.cli.usage import usage
from app.current import get_services
from app.errors import Unavailable
from app.runs.model_check import check_model
from app.storage.relocation import check_rows


@click.group(cls=Group)
def detect() -> None:
    """Detection: look at files, work on runs."""


@detect.command(
    short_help="Work on runs until SIGTERM.",
    epilog=usage("flask detect run", "DETECTION_WORKERS=4 flask detect run", exits={0: "stopped by SIGTERM"}),
)
@with_appcontext
def run() -> None:
    """Work on runs, DETECTION_WORKERS at once, until SIGTERM; what is under way then is handed back."""
    workers = get_services().settings.detection_workers
    check_model(get_services().settings)
    check_database()
    try:
        get_services().folders.open()
        check_rows(get_services().database, get_services().settings.media_folders)
    except Unavailable as error:  # a database that is away is waited for, as ever
        note(str(error))
    run_until_stopped(
        [*get_services().detection(), *get_services().upkeep()], f"Detecting, {workers} runs at once; SIGTERM ends it."
    )
