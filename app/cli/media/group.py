"""`flask media`: the group, ids of files, and recovery after crashes."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import click
from flask.cli import with_appcontext

from app.cli.error_handling import Group
from app.cli.output import json_option, note, show_json, show_table
from app.cli.usage import usage
from app.current import get_services
from app.media.hashing import media_id_of_file
from app.runs.model_check import check_model

POLL_SECONDS = 0.2


@click.group(cls=Group)
def media() -> None:
    """Stored media: upload, list, identify, recover, verify."""


@media.command(
    "hash", epilog=usage("flask media hash *.jpg", "flask media hash --json flight.mp4", exits={0: "printed"})
)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def hash_files(files: Sequence[Path], as_json: bool) -> None:
    """Print the ids that files would get when uploaded."""
    ids = [(media_id_of_path(path), str(path)) for path in files]
    if as_json:
        show_json([{"id": media_id, "file": path} for media_id, path in ids])
    else:
        for media_id, path in ids:
            click.echo(f"{media_id}  {path}")


@media.command(
    short_help="Take over runs of dead processes, and clean up.", epilog=usage("flask media recover", exits={0: "done"})
)
@json_option
@with_appcontext
def recover(as_json: bool) -> None:
    """Take over runs whose process died, after their leases expire, and remove leftovers of interrupted uploads."""
    get_services().folders.open()
    swept = get_services().sweep.run()
    runs = _finish_runs()
    if as_json:
        show_json({"runs": runs, "leftovers": swept.leftovers, "orphans": swept.orphans})
    else:
        show_table(
            ("runs taken over", "leftovers removed", "orphans removed"), [(runs, swept.leftovers, swept.orphans)]
        )


def _finish_runs() -> int:
    """Process the runs that wait or are under way now, and return how many have ended.

    A run that the same process holds longer than a lease has a live owner and is left to it.
    """
    runs, executor = get_services().runs, get_services().executor
    at_start = remaining = runs.active()
    if not at_start:
        return 0
    note(f"{len(at_start)} runs wait or are under way; leases last {runs.lease_seconds:g} seconds.")
    leases_have_expired = time.monotonic() + runs.lease_seconds + POLL_SECONDS
    check_model(get_services().settings)
    executor.start()
    try:
        while remaining:
            time.sleep(POLL_SECONDS)
            remaining = {run_id: owner for run_id, owner in runs.active().items() if run_id in at_start}
            if time.monotonic() > leases_have_expired:
                remaining = {
                    run_id: owner for run_id, owner in remaining.items() if owner is None or owner != at_start[run_id]
                }
    finally:
        executor.stop()
    return len(at_start.keys() - runs.active().keys())


def media_id_of_path(path: Path) -> str:
    """Return the id of a file on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return media_id_of_file(fd)
    finally:
        os.close(fd)
