"""`flask outbox`: the group, and the commands for delivery and repair."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NoReturn

import click
from flask.cli import with_appcontext

from app.cli.background import check_database, run_until_stopped
from app.cli.error_handling import Group
from app.cli.output import json_option, note, progress_bar, show_json, show_table
from app.cli.usage import usage
from app.current import get_services
from app.database.postgres_failover import AFTER_RESTORE
from app.errors import DetectionsError, MediaNotFound
from app.media.hashing import MEDIA_ID
from app.outbox import listing, serializers
from app.startup import warn_about_plain_http

STILL_PENDING, PARKED, UNKNOWN = 1, 3, 4
HELD_SHOWN = 5


@click.group(cls=Group)
def outbox() -> None:
    """Messages to the annotations service: deliver, inspect, repair."""


@outbox.command(
    epilog=usage(
        "flask outbox flush",
        "flask outbox flush --wait --timeout 60",
        "flask outbox flush --media 312b365b95c58364 --json",
        exits={
            0: "everything was delivered",
            STILL_PENDING: "some messages are still pending, or something failed",
            PARKED: "no message is pending, but media items are parked",
            UNKNOWN: "the media item of --media has no messages",
        },
    ),
)
@click.option("--wait", is_flag=True, help="Retry until everything is delivered.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds after which to give up.")
@click.option("--media", "media_id", metavar="ID", help="Only this media item's messages.")
@json_option
@with_appcontext
def flush(wait: bool, timeout: float | None, media_id: str | None, as_json: bool) -> NoReturn:
    """Attempt every pending message now, regardless of its backoff."""
    if get_services().annotations is None:
        note("ANNOTATIONS_URL is not set, so messages wait.")
    if media_id is not None:
        _history(media_id)  # report a mistyped id instead of success
    with progress_bar("delivering") as on_progress:
        report = get_services().flush(media_id, on_progress).run(wait=wait, timeout=timeout)
    if as_json:
        fields = asdict(report)
        timed_out = fields.pop("timed_out")
        show_json({**fields, "timedOut": timed_out})
    else:
        show_table(
            ("pending at start", "delivered", "still pending", "parked media"),
            [(report.total, report.delivered, report.pending, report.parked)],
        )
    if report.pending:
        _note_suspensions()
    raise SystemExit(STILL_PENDING if report.pending else PARKED if report.parked else 0)


@outbox.command(epilog=usage("flask outbox run", exits={0: "stopped by SIGTERM or SIGINT"}))
@with_appcontext
def run() -> None:
    """Run the dispatcher in a process of its own, until SIGTERM."""
    parts = get_services().delivery()
    if not parts:
        raise click.ClickException("ANNOTATIONS_URL is not set.")
    check_database()
    warn_about_plain_http(get_services().settings)
    try:
        get_services().folders.open()
    except DetectionsError as error:  # a dispatcher stores nothing and may run without the folders
        note(f"Cannot check whether the database was restored from an earlier copy: {error}")
    run_until_stopped([*parts, *get_services().upkeep()], "Delivering messages; SIGTERM stops it.")


@outbox.command(epilog=usage("flask outbox status", "flask outbox status --json | jq .parked", exits={0: "printed"}))
@json_option
@with_appcontext
def status(as_json: bool) -> None:
    """Show pending and parked messages, the circuit breaker and held users."""
    document = get_services().queries.fetch(get_services().outbox_status)
    if as_json:
        show_json(document)
        return
    held = document.pop("held")
    circuit = ((f"circuit {name}", text) for name, text in document.pop("circuit").items())
    show_table(("", ""), [*document.items(), *circuit, ("held users", len(held))])
    if held:
        columns = ("userId", "since", "until", "waiting", "reason")
        show_table(columns, [[user[name] for name in columns] for user in held])
    if document["restoredAt"]:
        note(f"The database was restored from an earlier copy. Run: {'; '.join(AFTER_RESTORE)}.")


@outbox.command(
    "list",
    short_help="List pending, parked or delivered messages.",
    epilog=usage(
        "flask outbox list",
        "flask outbox list --state parked --limit 200",
        "flask outbox list --state pending --json",
        exits={0: "listed"},
    ),
)
@click.option("--state", type=click.Choice(["pending", "parked", "delivered"]), help="Only messages in this state.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Maximum number.")
@json_option
@with_appcontext
def list_messages(state: listing.State | None, limit: int, as_json: bool) -> None:
    """List messages: pending ones by due time, then parked ones, then delivered ones, newest first."""
    pairs = get_services().queries.fetch(listing.first_page, state=state, limit=limit)
    rows = [serializers.message(*pair) for pair in pairs]
    if as_json:
        show_json(rows)
    else:
        columns = ("mediaId", "seq", "kind", "state", "createdAt", "attempts", "nextAttemptAt", "lastError")
        optional = ("nextAttemptAt", "createdAt", "attempts")
        show_table(columns, [[row[column] for column in columns] for row in rows], optional=optional)


@outbox.command(epilog=usage("flask outbox show 312b365b95c58364", exits={0: "shown", UNKNOWN: "it has no messages"}))
@click.argument("media_id", metavar="ID")
@json_option
@with_appcontext
def show(media_id: str, as_json: bool) -> None:
    """Show a media item's messages with every attempt."""
    document = _history(media_id)
    if as_json:
        show_json(document)
        return
    stream = {name: value for name, value in document.items() if name != "messages"}
    show_table(("", ""), stream.items())
    columns = ("seq", "kind", "state", "at", "milliseconds", "verdict", "status", "detail", "excerpt")
    lines = [
        [message["seq"], message["kind"], message["state"], *(attempt.get(name) for name in columns[3:])]
        for message in document["messages"]
        for attempt in message["attempts"] or [{}]
    ]
    show_table(columns, lines)


@outbox.command(
    epilog=usage(
        "flask outbox retry 312b365b95c58364",
        "flask outbox retry --all",
        exits={0: "pending again", UNKNOWN: "one of the IDs is not parked; the others are pending again"},
    ),
)
@click.argument("media_ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every parked media item.")
@json_option
@with_appcontext
def retry(media_ids: Sequence[str], everything: bool, as_json: bool) -> None:
    """Make parked media items pending again."""
    if everything == bool(media_ids):
        raise click.UsageError("Give IDs of parked media items, or --all.")
    well_formed = [media_id for media_id in media_ids if MEDIA_ID.fullmatch(media_id)]
    retried = get_services().outbox_admin.retry(None if everything else well_formed)
    if as_json:
        show_json({"retried": retried})
    else:
        show_table(("pending again",), [[media_id] for media_id in retried])
    missing = sorted(set(media_ids) - set(retried))
    if missing:
        _fail_unknown(f"Not parked: {', '.join(missing)}.")


@outbox.command(epilog=usage("flask outbox skip 312b365b95c58364", exits={0: "skipped", UNKNOWN: "it is not parked"}))
@click.argument("media_id", metavar="ID")
@json_option
@with_appcontext
def skip(media_id: str, as_json: bool) -> None:
    """Skip the first message of a parked media item, and record that."""
    _check_id(media_id)
    try:
        seq = get_services().outbox_admin.skip(media_id)
    except MediaNotFound as error:
        _fail_unknown(str(error))
    if as_json:
        show_json({"mediaId": media_id, "skipped": seq})
    else:
        show_table(("media", "skipped"), [(media_id, seq)])


@outbox.command(
    short_help="Delete delivered messages after their retention.",
    epilog=usage("flask outbox prune", "OUTBOX_RETENTION_DAYS=30 flask outbox prune", exits={0: "done"}),
)
@json_option
@with_appcontext
def prune(as_json: bool) -> None:
    """Delete messages that were delivered more than OUTBOX_RETENTION_DAYS ago, in batches.

    After each batch it pauses as long as the batch took, so that uploads have the database at least half of the time.
    """
    total = get_services().outbox_admin.prune(older_than_days=get_services().settings.outbox_retention_days)
    if as_json:
        show_json({"pruned": total})
    else:
        show_table(("pruned",), [(total,)])


def _note_suspensions() -> None:
    """Print why delivery is suspended, for all messages or for those of a user."""
    document = get_services().queries.fetch(get_services().outbox_status)
    circuit, held = document["circuit"], document["held"]
    if circuit["state"] != "closed":
        note(f"The circuit is {circuit['state']}: {circuit['reason']}.")
    for user in held[:HELD_SHOWN]:
        note(f"User {user['userId']} is held until {user['until']}: {user['reason']}.")
    if len(held) > HELD_SHOWN:
        note(f"{len(held) - HELD_SHOWN} more users are held; `flask outbox status` lists them.")


def _history(media_id: str) -> dict[str, Any]:
    """Return the document of a media item's messages. Ends the command if there are none."""
    _check_id(media_id)
    try:
        return serializers.history(get_services().queries.fetch(listing.history, media_id))
    except MediaNotFound as error:
        _fail_unknown(str(error))


def _check_id(media_id: str) -> None:
    """End the command unless the text has the form of an id; PostgreSQL does not accept every text."""
    if not MEDIA_ID.fullmatch(media_id):
        _fail_unknown(f"There are no messages of media {media_id!r}.")


def _fail_unknown(text: str) -> NoReturn:
    note(text)
    raise SystemExit(UNKNOWN)
