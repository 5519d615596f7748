"""`flask media …`: ids of files, and recovery after crashes."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import click
from flask.cli import with_appcontext

from app.cli.output import json_option, note, show_json, show_table
from app.current import services
from app.media_hash import media_id_of_file

LOOK_EVERY = 0.2


@click.group()
def media() -> None:
    """Stored media: identify, recover."""


@media.command("hash")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def hash_files(files: Sequence[Path], as_json: bool) -> None:
    """Ids of files, as an upload of them would get."""
    ids = [(media_id_of_path(path), str(path)) for path in files]
    if as_json:
        show_json([{"id": media_id, "file": path} for media_id, path in ids])
    else:
        for media_id, path in ids:
            click.echo(f"{media_id}  {path}")


@media.command()
@json_option
@with_appcontext
def recover(as_json: bool) -> None:
    """Take over runs whose process died, waiting for their leases to expire, and sweep leftovers of cut-off uploads."""
    swept = services().sweep.run()
    runs = _finish_runs()
    if as_json:
        show_json({"runs": runs, "leftovers": swept.leftovers, "orphans": swept.orphans})
    else:
        show_table(
            ("runs taken over", "leftovers removed", "orphans removed"), [(runs, swept.leftovers, swept.orphans)]
        )


def _finish_runs() -> int:
    """Work on runs until none waits or is under way; returns how many there were at the start."""
    runs, executor = services().runs, services().executor
    at_start = runs.count_active()
    if not at_start:
        return 0
    note(f"{at_start} runs wait or are under way; leases last {runs.lease_seconds:g} seconds.")
    executor.start()
    try:
        while runs.count_active():
            time.sleep(LOOK_EVERY)
    finally:
        executor.stop()
    return at_start


def media_id_of_path(path: Path) -> str:
    """The id of a file on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return media_id_of_file(fd)
    finally:
        os.close(fd)
