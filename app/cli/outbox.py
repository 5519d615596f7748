"""`flask outbox …`: what a person may ask of the outbox, and do to it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NoReturn

import click
from flask.cli import with_appcontext

from app.cli.background import check_database, run_until_stopped
from app.cli.faults import Group
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
    """Messages to the annotations service: deliver, look, repair."""


@outbox.command(
    epilog=usage(
        "flask outbox flush",
        "flask outbox flush --wait --timeout 60",
        "flask outbox flush --media 312b365b95c58364 --json",
        exits={
            0: "drained",
            STILL_PENDING: "some are still pending, or something failed",
            PARKED: "none is pending, but some are parked",
            UNKNOWN: "no message was ever written for the media of --media",
        },
    ),
)
@click.option("--wait", is_flag=True, help="Keep trying until everything has arrived.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Give up after so many seconds.")
@click.option("--media", "media_id", metavar="ID", help="Only this media's messages.")
@json_option
@with_appcontext
def flush(wait: bool, timeout: float | None, media_id: str | None, as_json: bool) -> NoReturn:
    """Try everything that is pending now, whatever its backoff."""
    if get_services().annotations is None:
        note("ANNOTATIONS_URL is not set: there is nowhere to deliver to, so messages wait.")
    if media_id is not None:
        _history(media_id)  # a mistyped id must not be told of as drained
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
        _say_what_holds_back()
    raise SystemExit(STILL_PENDING if report.pending else PARKED if report.parked else 0)


@outbox.command(epilog=usage("flask outbox run", exits={0: "ended by SIGTERM or SIGINT"}))
@with_appcontext
def run() -> None:
    """The dispatcher as a process of its own, until SIGTERM."""
    parts = get_services().delivery()
    if not parts:
        raise click.ClickException("ANNOTATIONS_URL is not set: there is nowhere to deliver to.")
    check_database()
    warn_about_plain_http(get_services().settings)
    try:
        get_services().folders.open()
    except DetectionsError as error:  # a dispatcher stores nothing, and may run where no folder is
        note(f"Whether the database was restored from an earlier copy cannot be told: {error}")
    run_until_stopped([*parts, *get_services().upkeep()], "Dispatching; SIGTERM ends it.")


@outbox.command(epilog=usage("flask outbox status", "flask outbox status --json | jq .parked", exits={0: "told"}))
@json_option
@with_appcontext
def status(as_json: bool) -> None:
    """What waits, since when, how the circuit breaker stands, and who is held."""
    document = get_services().queries.fetch(get_services().outbox_status)
    if as_json:
        show_json(document)
        return
    held = document.pop("held")
    circuit = ((f"circuit {name}", text) for name, text in document.pop("circuit").items())
    show_table(("", ""), [*document.items(), *circuit, ("held users", len(held))])
    if held:
        columns = ("userId", "since", "until", "waiting", "reason")
        show_table(columns, [[one[name] for name in columns] for one in held])
    if document["restoredAt"]:
        note(f"The database was restored from an earlier copy. Run: {'; '.join(AFTER_RESTORE)}.")


@outbox.command(
    "list",
    short_help="Messages: waiting, parked or delivered ones.",
    epilog=usage(
        "flask outbox list",
        "flask outbox list --state parked --limit 200",
        "flask outbox list --state pending --json",
        exits={0: "listed"},
    ),
)
@click.option("--state", type=click.Choice(["pending", "parked", "delivered"]), help="Only messages of this state.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@json_option
@with_appcontext
def list_messages(state: listing.State | None, limit: int, as_json: bool) -> None:
    """Messages: those that wait in the order they are due, then parked ones, then delivered ones, newest first."""
    found = get_services().queries.fetch(listing.first_page, state=state, limit=limit)
    rows = [serializers.message(*pair) for pair in found]
    if as_json:
        show_json(rows)
    else:
        columns = ("mediaId", "seq", "kind", "state", "createdAt", "attempts", "nextAttemptAt", "lastError")
        spare = ("nextAttemptAt", "createdAt", "attempts")
        show_table(columns, [[row[column] for column in columns] for row in rows], spare=spare)


@outbox.command(
    epilog=usage("flask outbox show 312b365b95c58364", exits={0: "shown", UNKNOWN: "no message of it was ever written"})
)
@click.argument("media_id", metavar="ID")
@json_option
@with_appcontext
def show(media_id: str, as_json: bool) -> None:
    """One media's messages with every attempt."""
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
        exits={0: "put back", UNKNOWN: "one of those named is not parked; the others were put back"},
    ),
)
@click.argument("media_ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every parked media.")
@json_option
@with_appcontext
def retry(media_ids: Sequence[str], everything: bool, as_json: bool) -> None:
    """Put parked media back to pending."""
    if everything == bool(media_ids):
        raise click.UsageError("Name parked media, or say --all.")
    possible = [one for one in media_ids if MEDIA_ID.fullmatch(one)]
    put_back = get_services().outbox_admin.retry(None if everything else possible)
    if as_json:
        show_json({"retried": put_back})
    else:
        show_table(("put back",), [[media_id] for media_id in put_back])
    missing = sorted(set(media_ids) - set(put_back))
    if missing:
        _unknown(f"Not parked: {', '.join(missing)}.")


@outbox.command(epilog=usage("flask outbox skip 312b365b95c58364", exits={0: "dropped", UNKNOWN: "it is not parked"}))
@click.argument("media_id", metavar="ID")
@json_option
@with_appcontext
def skip(media_id: str, as_json: bool) -> None:
    """Drop the head message of a parked media, recorded as skipped."""
    _check_possible(media_id)
    try:
        seq = get_services().outbox_admin.skip(media_id)
    except MediaNotFound as error:
        _unknown(str(error))
    if as_json:
        show_json({"mediaId": media_id, "skipped": seq})
    else:
        show_table(("media", "skipped"), [(media_id, seq)])


@outbox.command(
    short_help="Delete delivered messages past their retention.",
    epilog=usage("flask outbox prune", "OUTBOX_RETENTION_DAYS=30 flask outbox prune", exits={0: "done"}),
)
@json_option
@with_appcontext
def prune(as_json: bool) -> None:
    """Delete delivered messages past OUTBOX_RETENTION_DAYS, a batch at a time.

    It pauses after each batch for as long as the batch took, so that uploads have the database at least half of the
    time.
    """
    total = get_services().outbox_admin.prune(older_than_days=get_services().settings.outbox_retention_days)
    if as_json:
        show_json({"pruned": total})
    else:
        show_table(("pruned",), [(total,)])


def _say_what_holds_back() -> None:
    """Why nothing gets through, where that is one reason for all, or for all of a user's."""
    document = get_services().queries.fetch(get_services().outbox_status)
    circuit, held = document["circuit"], document["held"]
    if circuit["state"] != "closed":
        note(f"The circuit is {circuit['state']}: {circuit['reason']}.")
    for one in held[:HELD_SHOWN]:
        note(f"User {one['userId']} is held until {one['until']}: {one['reason']}.")
    if len(held) > HELD_SHOWN:
        note(f"{len(held) - HELD_SHOWN} more users are held: `flask outbox status` names them.")


def _history(media_id: str) -> dict[str, Any]:
    """The document of one media's messages; ends the command where it has none."""
    _check_possible(media_id)
    try:
        return serializers.history(get_services().queries.fetch(listing.history, media_id))
    except MediaNotFound as error:
        _unknown(str(error))


def _check_possible(media_id: str) -> None:
    """What is no id may hold what a database takes for no text at all."""
    if not MEDIA_ID.fullmatch(media_id):
        _unknown(f"The outbox has no messages of media item {media_id!r}.")


def _unknown(text: str) -> NoReturn:
    note(text)
    raise SystemExit(UNKNOWN)
