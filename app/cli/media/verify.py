"""`flask media verify`: reads stored files back and compares them with their rows."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import click
from flask.cli import with_appcontext

from app.cli.output import json_option, note, printable, progress_bar, show_table, stream_json
from app.cli.usage import usage
from app.current import get_services
from app.storage.verification import DAMAGE, Finding, Problem, Verification

UNKNOWN, DAMAGED = 4, 5


@click.command(
    short_help="Read stored files back and list damaged ones.",
    epilog=usage(
        "flask media verify",
        "flask media verify --id 312b365b95c58364",
        "flask media verify --json | jq '.findings[].path'",
        exits={0: "no damage", 4: "an ID is unknown", 5: "a file is missing, changed or unreadable"},
    ),
)
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this media item's file; can be repeated.")
@click.option("--record", is_flag=True, help="Store the present checksum of files that have none.")
@json_option
@with_appcontext
def verify(ids: Sequence[str], record: bool, as_json: bool) -> None:
    """Read stored files back and list those that differ from their rows.

    missing: the file does not exist. changed: another size or checksum. unreadable: the disk fails. orphaned: a file
    without a media item (uploads under way are excluded). unchecked: the row has no checksum, so only the size was
    compared; files that were stored before checksums existed or adopted from the annotations service have none.

    Nothing is repaired, and the service may keep running.
    """
    verification, counts = get_services().verification(), Counter[Problem]()
    findings = _counted(_findings(verification, ids, record), counts)
    if as_json:
        stream_json("findings", map(_document, findings), lambda: _totals(verification, counts))
    else:
        for item in findings:
            click.echo(printable(f"{item.problem:10}  {item.media_id or '-':16}  {item.path}  {item.detail}"))
        totals = _totals(verification, counts)
        show_table(list(totals), [list(totals.values())])
    unknown = verification.unknown(ids)
    if unknown:
        note(f"No media item has the id {', '.join(unknown)}.")
    if any(counts[problem] for problem in DAMAGE):
        raise SystemExit(DAMAGED)
    if unknown:
        raise SystemExit(UNKNOWN)


def _findings(verification: Verification, ids: Sequence[str], record: bool) -> Iterator[Finding]:
    with progress_bar("reading back") as on_progress:
        yield from verification.media(ids, record=record, on_progress=on_progress)
    if not ids:
        with progress_bar("searching orphans") as on_progress:
            yield from verification.orphans(on_progress=on_progress)


def _counted(findings: Iterator[Finding], counts: Counter[Problem]) -> Iterator[Finding]:
    for finding in findings:
        counts[finding.problem] += 1
        yield finding


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "problem": finding.problem,
        "mediaId": finding.media_id,
        "path": finding.path.encode(errors="replace").decode(),
        "detail": finding.detail,
    }


def _totals(verification: Verification, counts: Counter[Problem]) -> dict[str, int]:
    totals = {"checked": verification.checked, "recorded": verification.recorded}
    return totals | {str(problem): counts[problem] for problem in Problem}
