"""`flask media relocate`: updates rows after a media folder was deliberately moved."""

from collections.abc import Iterator
from pathlib import Path

import click
from flask.cli import with_appcontext

from app.cli.output import json_option, note, printable, progress_bar, stream_json
from app.cli.usage import usage
from app.current import get_services
from app.storage.relocation import Relocation, Unmoved

LEFT = 5


@click.command(
    short_help="Update the rows of a folder that was moved.",
    epilog=usage(
        "flask media relocate /var/lib/detections/images /srv/images",
        exits={0: "every row was changed to NEW", LEFT: "some files are not there; their rows are unchanged"},
    ),
)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@json_option
@with_appcontext
def relocate(old: Path, new: Path, as_json: bool) -> None:
    """Change rows with files in OLD to NEW, which must be VIDEOS_DIR or IMAGES_DIR as now configured.

    Each file is checked in NEW before its row is changed. Stop the service meanwhile. Run the command again after an
    interruption, or when missing files are there. Waiting messages keep the old path.
    """
    relocation = Relocation(get_services().database, get_services().settings.media_folders)
    relocation.check(old.absolute(), new.absolute())
    left: list[Unmoved] = []
    findings = _run(relocation, old.absolute(), new.absolute(), left)
    if as_json:
        stream_json("left", map(_document, findings), lambda: {"moved": relocation.moved})
    else:
        for row in findings:
            click.echo(printable(f"{row.media_id}  {row.path}  {row.reason}"))
        click.echo(f"moved {relocation.moved}, left {len(left)}")
    if left:
        note("The rows that were left are unchanged. Run the command again when their files are there.")
        raise SystemExit(LEFT)


def _run(relocation: Relocation, old: Path, new: Path, left: list[Unmoved]) -> Iterator[Unmoved]:
    with progress_bar("relocating") as on_progress:
        for row in relocation.run(old, new, on_progress):
            left.append(row)
            yield row


def _document(row: Unmoved) -> dict[str, str]:
    return {"mediaId": row.media_id, "path": row.path, "reason": row.reason}
