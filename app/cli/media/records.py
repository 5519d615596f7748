"""`flask media list` and `flask media show`: stored media items as the API returns them."""

from typing import Any

import click
from flask.cli import with_appcontext

from app import serializers
from app.cli.output import json_option, note, show_json, show_table
from app.cli.usage import usage
from app.current import get_services
from app.database.models import MediaStatus
from app.errors import MediaNotFound
from app.queries import media_items

UNKNOWN = 4
PAGE = 500
STATUSES = {
    "new": MediaStatus.NEW,
    "processing": MediaStatus.AI_PROCESSING,
    "processed": MediaStatus.AI_PROCESSED,
    "error": MediaStatus.ERROR,
}
TYPES = {"image": "Image", "video": "Video"}


@click.command(
    "list",
    epilog=usage(
        "flask media list",
        "flask media list --status error --type video",
        "flask media list --limit 1000 --json | jq '.[].id'",
        exits={0: "listed"},
    ),
)
@click.option("--status", type=click.Choice(list(STATUSES)), help="Only media items with this status.")
@click.option("--type", "kind", type=click.Choice(list(TYPES)), help="Only images, or only videos.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Maximum number.")
@json_option
@with_appcontext
def list_media(status: str | None, kind: str | None, limit: int, as_json: bool) -> None:
    """List stored media items, newest first."""
    records: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = get_services().queries.fetch(
            media_items.page,
            status=STATUSES[status] if status else None,
            media_type=TYPES[kind] if kind else None,
            limit=min(PAGE, limit - len(records)),
            cursor=cursor,
        )
        records += [serializers.media(view) for view in page.items]
        cursor = page.next_cursor
        if cursor is None or len(records) == limit:
            break
    if as_json:
        show_json(records)
    else:
        columns = ("id", "type", "status", "bytes", "created", "user", "delivery", "name")
        show_table(columns, map(_row, records), optional=("user", "created", "type"))
        if cursor is not None:
            note(f"There are more than {limit}; use --limit.")


@click.command(
    "show",
    epilog=usage(
        "flask media show 312b365b95c58364",
        "flask media show 312b365b95c58364 --json | jq .delivery.lastError",
        exits={0: "shown", UNKNOWN: "there is no such media item"},
    ),
)
@click.argument("media_id", metavar="ID")
@json_option
@with_appcontext
def show_media(media_id: str, as_json: bool) -> None:
    """Show a media item with its last run and its delivery state."""
    try:
        view = get_services().queries.fetch(media_items.view, media_id)
    except MediaNotFound as error:
        note(str(error))
        raise SystemExit(UNKNOWN) from error
    record, path = serializers.media(view), view.media.path
    if as_json:
        show_json(record)
    else:
        show_table(("", ""), [*_lines({"path": path} | record | {"mediaStatus": _status(record)})])


def _status(record: dict[str, Any]) -> str:
    return next(name for name, status in STATUSES.items() if status == record["mediaStatus"])


def _delivery(record: dict[str, Any]) -> str:
    delivery = record["delivery"]
    if delivery["parked"]:
        return "parked"
    return f"{delivery['pending']} pending" if delivery["pending"] else "delivered" if delivery["delivered"] else "none"


def _row(record: dict[str, Any]) -> tuple[object, ...]:
    kind, status = record["mediaType"].lower(), _status(record)
    known = (record["sizeBytes"], record["createdAt"], record["userId"], _delivery(record), record["name"])
    return record["id"], kind, status, *known


def _lines(document: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Return a document as names and values; names of nested documents are prefixed."""
    lines: list[tuple[str, object]] = []
    for name, value in document.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{prefix}{name} ")
        else:
            lines.append((f"{prefix}{name}", "; ".join(value) if isinstance(value, list) else value))
    return lines
