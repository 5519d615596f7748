"""`flask outbox resend`: sends again what the annotations service has lost."""

from collections.abc import Sequence
from datetime import datetime

import click
from flask.cli import with_appcontext

from app.cli.output import json_option, note, progress_bar, show_json, show_table
from app.cli.usage import usage
from app.current import get_services
from app.errors import Unavailable
from app.media.hashing import MEDIA_ID
from app.outbox.auditor import RemoteAuditor
from app.outbox.resend import Resend, ResendReport, Selection

UNKNOWN = 4


class Timestamp(click.ParamType[float]):
    """A click type for a time in RFC 3339, converted to seconds since 1970."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Fail for invalid times and for times without an offset from UTC."""
        if isinstance(value, float):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            moment = datetime.min  # noqa: DTZ901 (rejected below, because it has no offset)
        if moment.tzinfo is None:
            self.fail(f"{value!r} is not a time with its offset from UTC, such as 2026-11-27T03:00:00Z.", param, ctx)
        return moment.timestamp()


@click.command(
    short_help="Send again what the annotations service has lost.",
    epilog=usage(
        "flask outbox resend --missing --dry-run",
        "flask outbox resend --missing",
        "flask outbox resend --since 2026-11-27T03:00:00Z",
        "flask outbox resend 312b365b95c58364",
        exits={
            0: "everything missing or behind is enqueued, or nothing is",
            1: "the annotations service could not be queried, or something failed",
            UNKNOWN: "one of the IDs is unknown; the others were handled",
        },
    ),
)
@click.argument("media_ids", nargs=-1, metavar="[ID]...")
@click.option("--missing", is_flag=True, help="All media items whose remote record is missing or behind.")
@click.option("--since", type=Timestamp(), help="Media items recorded or delivered since then (RFC 3339).")
@click.option("--dry-run", is_flag=True, help="Print what would be sent again, and change nothing.")
@json_option
@with_appcontext
def resend(media_ids: Sequence[str], missing: bool, since: float | None, dry_run: bool, as_json: bool) -> None:
    """Enqueue a create message and the statuses up to the current one for items whose remote record is missing or
    behind.

    The remote record is fetched by GET. If the annotations service does not allow that, --missing fails, and items
    named by ID or selected by --since are always sent again.
    """
    if (bool(media_ids), missing, since is not None).count(True) != 1:
        raise click.UsageError("Give IDs of media items, --missing, or --since TIME.")
    auditor = get_services().auditor()
    if auditor is None:
        raise click.ClickException("ANNOTATIONS_URL is not set.")
    well_formed = [media_id for media_id in media_ids if MEDIA_ID.fullmatch(media_id)]
    known = [item.media_id for item in auditor.expected(well_formed)]
    report = _run(auditor, Selection(known if media_ids else None, since), dry_run=dry_run)
    _show(report, dry_run=dry_run, as_json=as_json)
    unknown = sorted(set(media_ids) - set(known))
    if unknown:
        note(f"No media item has the id {', '.join(unknown)}.")
        raise SystemExit(UNKNOWN)


def _run(auditor: RemoteAuditor, wanted: Selection, *, dry_run: bool) -> ResendReport:
    try:
        with progress_bar("comparing") as on_progress:
            resend = Resend(
                get_services().database,
                get_services().queue,
                auditor,
                dry_run=dry_run,
                on_progress=lambda asked: on_progress(asked, None),
            )
            return resend.run(wanted)
    except Unavailable as error:
        raise click.ClickException(f"The annotations service could not be queried: {error}") from error


def _show(report: ResendReport, *, dry_run: bool, as_json: bool) -> None:
    resent = [
        {"mediaId": media_id, "problem": problem, "messages": count} for media_id, problem, count in report.resent
    ]
    left = [{"mediaId": media_id, "reason": reason} for media_id, reason in report.left]
    if as_json:
        show_json({"asked": report.asked, "dryRun": dry_run, "resent": resent, "left": left})
        return
    if resent:
        show_table(("media", "remote record", "messages"), [list(row.values()) for row in resent])
    for row in left:
        note(f"Unchanged: {row['mediaId']}: {row['reason']}.")
    sent = "would be sent again" if dry_run else "will be sent again"
    note(f"{report.asked} compared, {len(resent)} {sent}.")
