"""`flask media relocate`: after a media folder was moved on purpose, its rows follow."""

from collections.abc import Iterator
from pathlib import Path

import click
from flask.cli import with_appcontext

from app.cli.output import json_option, note, printable, progress_bar, stream_json
from app.cli.usage import usage
from app.current import get_services
from app.storage.relocation import Left, Relocation

LEFT = 5


@click.command(
    short_help="Have the rows of a folder that was moved follow it.",
    epilog=usage(
        "flask media relocate /var/lib/detections/images /srv/images",
        exits={0: "every row lies in NEW", LEFT: "some files are not there; nothing was changed for them"},
    ),
)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@json_option
@with_appcontext
def relocate(old: Path, new: Path, as_json: bool) -> None:
    """Have the rows whose files lie in OLD say that they lie in NEW, which is VIDEOS_DIR or IMAGES_DIR as set now.

    Each file is looked at in NEW before its row is changed. The service is to be stopped meanwhile. Where the command
    was interrupted, or files were not there yet, run it again. Messages that still wait keep the path of before.
    """
    relocation = Relocation(get_services().database, get_services().settings.media_folders)
    relocation.check(old.absolute(), new.absolute())
    left: list[Left] = []
    findings = _run(relocation, old.absolute(), new.absolute(), left)
    if as_json:
        stream_json("left", map(_document, findings), lambda: {"moved": relocation.moved})
    else:
        for one in findings:
            click.echo(printable(f"{one.media_id}  {one.path}  {one.reason}"))
        click.echo(f"moved {relocation.moved}, left {len(left)}")
    if left:
        note("Nothing was changed for those that were left. Once their files are there, run the command again.")
        raise SystemExit(LEFT)


def _run(relocation: Relocation, old: Path, new: Path, left: list[Left]) -> Iterator[Left]:
    with progress_bar("relocating") as on_progress:
        for one in relocation.run(old, new, on_progress):
            left.append(one)
            yield one


def _document(one: Left) -> dict[str, str]:
    return {"mediaId": one.media_id, "path": one.path, "reason": one.reason}
