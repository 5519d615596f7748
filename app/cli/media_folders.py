"""`flask media accept-folders`: a person says that the media folders are this database's."""

import click
from flask.cli import with_appcontext

from app.cli.output import json_option, note, show_json, show_table
from app.cli.usage import usage
from app.current import get_services


@click.command(
    "accept-folders",
    short_help="Accept media folders that were replaced or moved on purpose.",
    epilog=usage("flask media accept-folders", exits={0: "the folders have this database's marker"}),
)
@json_option
@with_appcontext
def accept_folders(as_json: bool) -> None:
    """Accept VIDEOS_DIR and IMAGES_DIR as the folders of this database, and write its marker into them.

    For folders that were restored from a copy or set up anew, and for a database that replaces another one. The service
    does not start with folders that lack the marker, because a disk that is not mounted looks like that. A folder that
    was moved with its `.detections` needs nothing. Where no folder tells how far the database had come, its messages go
    on in a new epoch.
    """
    accepted = get_services().folders.accept()
    if as_json:
        show_json([{"folder": str(one.folder), "before": one.before, "changed": one.changed} for one in accepted])
    else:
        show_table(
            ("folder", "marker before"),
            [(one.folder, (one.before or "none") if one.changed else "as it is now") for one in accepted],
        )
    note("`flask media verify` tells whether every file is there.")
