"""`flask detect cancel`: cancels runs, in whichever process they are."""

from typing import NoReturn

import click
from flask.cli import with_appcontext

from app.cli.error_handling import Command
from app.cli.output import json_option, show_json, show_table
from app.cli.usage import usage
from app.current import get_services
from app.errors import NotProcessing
from app.media.hashing import MEDIA_ID

NONE_UNDER_WAY = 4
BY = "an administrator (flask detect cancel)"


@click.command(
    cls=Command,
    epilog=usage(
        "flask detect cancel 312b365b95c58364",
        "flask detect cancel 312b365b95c58364 89b8ffe20b1ffe6f --json",
        exits={0: "every run was cancelled", NONE_UNDER_WAY: "an ID is unknown or has no run under way"},
    ),
)
@click.argument("media_ids", metavar="ID...", nargs=-1, required=True)
@json_option
@with_appcontext
def cancel(media_ids: tuple[str, ...], as_json: bool) -> NoReturn:
    """Cancel the runs under way of these media items. Each item's status becomes Error, which is delivered as usual."""
    rows = [{"mediaId": media_id, "cancelled": _is_cancelled(media_id)} for media_id in media_ids]
    if as_json:
        show_json(rows)
    else:
        show_table(
            ("media", ""),
            [(row["mediaId"], "cancelled" if row["cancelled"] else "no run is under way") for row in rows],
        )
    raise SystemExit(0 if all(row["cancelled"] for row in rows) else NONE_UNDER_WAY)


def _is_cancelled(media_id: str) -> bool:
    if not MEDIA_ID.fullmatch(media_id):
        return False
    try:
        get_services().runs.cancel(media_id, BY, user=None)
    except NotProcessing:
        return False
    return True
