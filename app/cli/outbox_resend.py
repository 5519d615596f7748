"""`flask outbox resend`: say again what the annotations service has lost."""

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


class Moment(click.ParamType[float]):
    """A time of RFC 3339, given as seconds since 1970."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Fails for what is no such time, and for one that does not say its offset from UTC."""
        if isinstance(value, float):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            moment = datetime.min  # noqa: DTZ901 (told apart below by having no offset)
        if moment.tzinfo is None:
            self.fail(f"{value!r} is not a time with its offset from UTC, such as 2026-11-27T03:00:00Z.", param, ctx)
        return moment.timestamp()


@click.command(
    short_help="Say again what the annotations service has lost.",
    epilog=usage(
        "flask outbox resend --missing --dry-run",
        "flask outbox resend --missing",
        "flask outbox resend --since 2026-11-27T03:00:00Z",
        "flask outbox resend 312b365b95c58364",
        exits={
            0: "everything that is missing or behind there is on its way, or nothing is",
            1: "the annotations service could not be asked, or something failed",
            UNKNOWN: "one of those named is unknown; the others were asked for",
        },
    ),
)
@click.argument("media_ids", nargs=-1, metavar="[ID]...")
@click.option("--missing", is_flag=True, help="Everything whose record is missing or behind there.")
@click.option("--since", type=Moment(), help="What was recorded or delivered since then, a time of RFC 3339.")
@click.option("--dry-run", is_flag=True, help="Tell what would be said again, and change nothing.")
@json_option
@with_appcontext
def resend(media_ids: Sequence[str], missing: bool, since: float | None, dry_run: bool, as_json: bool) -> None:
    """Append a create and the statuses that lead to the present one, for items whose record is missing or behind there.

    What the annotations service has is asked by GET. Where it lets nobody look, --missing fails, and items that are
    named, or chosen by --since, are said again in any case.
    """
    if (bool(media_ids), missing, since is not None).count(True) != 1:
        raise click.UsageError("Name media items, or say --missing, or --since TIME.")
    auditor = get_services().auditor()
    if auditor is None:
        raise click.ClickException("ANNOTATIONS_URL is not set: there is nobody to say anything to.")
    possible = [media_id for media_id in media_ids if MEDIA_ID.fullmatch(media_id)]
    known = [one.media_id for one in auditor.expected(possible)]
    report = _run(auditor, Selection(known if media_ids else None, since), dry_run=dry_run)
    _show(report, dry_run=dry_run, as_json=as_json)
    unknown = sorted(set(media_ids) - set(known))
    if unknown:
        note(f"No media item has the id {', '.join(unknown)}.")
        raise SystemExit(UNKNOWN)


def _run(auditor: RemoteAuditor, wanted: Selection, *, dry_run: bool) -> ResendReport:
    try:
        with progress_bar("asking") as on_progress:
            resend = Resend(
                get_services().database,
                get_services().queue,
                auditor,
                dry_run=dry_run,
                on_progress=lambda asked: on_progress(asked, None),
            )
            return resend.run(wanted)
    except Unavailable as error:
        raise click.ClickException(f"The annotations service could not be asked: {error}") from error


def _show(report: ResendReport, *, dry_run: bool, as_json: bool) -> None:
    resent = [
        {"mediaId": media_id, "problem": problem, "messages": count} for media_id, problem, count in report.resent
    ]
    left = [{"mediaId": media_id, "reason": reason} for media_id, reason in report.left]
    if as_json:
        show_json({"asked": report.asked, "dryRun": dry_run, "resent": resent, "left": left})
        return
    if resent:
        show_table(("media", "there", "messages"), [list(row.values()) for row in resent])
    for row in left:
        note(f"Left as it is: {row['mediaId']}: {row['reason']}.")
    said = "would be said again" if dry_run else "are said again"
    note(f"{report.asked} asked for, {len(resent)} {said}.")
