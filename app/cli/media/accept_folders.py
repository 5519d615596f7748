"""`flask media accept-folders`: confirms that the media folders belong to this database."""

import click
from flask.cli import with_appcontext

from app.cli.output import json_option, note, show_json, show_table
from app.cli.usage import usage
from app.current import get_services


@click.command(
    "accept-folders",
    short_help="Accept media folders that were deliberately replaced or moved.",
    epilog=usage("flask media accept-folders", exits={0: "the folders have this database's marker"}),
)
@json_option
@with_appcontext
def accept_folders(as_json: bool) -> None:
    """Accept VIDEOS_DIR and IMAGES_DIR as the folders of this database, and write its marker into them.

    Use it for folders that were restored from a copy or newly created, and for a database that replaces another one.
    The service does not start with folders that lack the marker, because an unmounted disk looks the same. A folder
    that was moved with its `.detections` needs nothing. If no folder tells how far the database had come, messages
    continue in a new epoch.
    """
    accepted = get_services().folders.accept()
    if as_json:
        show_json([{"folder": str(item.folder), "before": item.before, "changed": item.changed} for item in accepted])
    else:
        show_table(
            ("folder", "previous marker"),
            [(item.folder, (item.before or "none") if item.changed else "unchanged") for item in accepted],
        )
    note("Run `flask media verify` to check that every file is there.")
