"""`flask outbox verify`: the invariants, and with --remote what the annotations service has.

This module begins transactions.
"""

from collections.abc import Iterator
from functools import partial

import click
from flask.cli import with_appcontext

from app.cli.output import json_option, note, progress_bar, show_json, show_table
from app.cli.usage import usage
from app.current import services
from app.errors import Unavailable
from app.outbox.auditor import RemoteAuditor
from app.outbox.remote_audit import Difference, RemoteState
from app.outbox.verify import walk

BROKEN = 5
PORTION_SECONDS = 30.0


@click.command(
    epilog=usage(
        "flask outbox verify",
        "flask outbox verify --remote --json",
        exits={
            0: "every invariant holds",
            1: "the annotations service cannot be asked, or something failed",
            BROKEN: "one is broken, or the other side differs",
        },
    ),
)
@click.option("--remote", is_flag=True, help="Compare with what the annotations service has, too.")
@json_option
@with_appcontext
def verify(remote: bool, as_json: bool) -> None:
    """Check the invariants on the stored rows."""
    database = services().database
    with progress_bar("checking") as on_progress:
        broken = walk(partial(database.reading, statement_seconds=PORTION_SECONDS), on_progress)
    differences = list(_differences()) if remote else []
    unlike = [{"mediaId": one.media_id, "problem": one.problem} for one in differences]
    warnings = database.warnings()
    for warning in warnings:
        note(warning)
    if as_json:
        show_json({"broken": broken, "warnings": warnings} | ({"differences": unlike} if remote else {}))
    elif broken or unlike:
        show_table(("media", "problem"), [(row["mediaId"], row["problem"]) for row in [*broken, *unlike]])
    if any(one.state in (RemoteState.MISSING, RemoteState.BEHIND) for one in differences):
        note("To say again what is missing or behind there: flask outbox resend --missing")
    if broken or unlike:
        raise SystemExit(BROKEN)
    note("Every invariant holds.")


def _differences() -> Iterator[Difference]:
    try:
        for _, difference in _auditor().comparisons():
            if difference.state is not RemoteState.SAME:
                yield difference
    except Unavailable as error:
        raise click.ClickException(f"The annotations service cannot be asked: {error}") from error


def _auditor() -> RemoteAuditor:
    auditor = services().auditor()
    if auditor is None:
        raise click.ClickException("ANNOTATIONS_URL is not set: there is nothing to compare with.")
    return auditor
