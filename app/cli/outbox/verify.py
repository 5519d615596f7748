"""`flask outbox verify`: checks SQLite's integrity, the invariants and, with --remote, the annotations service's
records.
"""

from collections.abc import Iterator
from dataclasses import asdict

import click
from flask.cli import with_appcontext

from app.cli.output import json_option, note, progress_bar, show_json, show_table
from app.cli.usage import usage
from app.current import get_services
from app.database.error_translation import RESCUE
from app.database.integrity import Damage
from app.errors import DatabaseDamaged, Unavailable
from app.outbox.auditor import RemoteAuditor
from app.outbox.remote_audit import Difference, RemoteState

BROKEN = 5


@click.command(
    epilog=usage(
        "flask outbox verify",
        "flask outbox verify --remote --json",
        exits={
            0: "every invariant holds",
            1: "the annotations service cannot be queried, or something failed",
            BROKEN: "an invariant or the database is broken, or a remote record differs",
        },
    ),
)
@click.option("--remote", is_flag=True, help="Also compare with the annotations service's records.")
@json_option
@with_appcontext
def verify(remote: bool, as_json: bool) -> None:
    """Check the database's integrity and the invariants on its rows."""
    database = get_services().database
    damage = _damage() if database.is_sqlite else []
    broken = _broken(damage)
    differences = list(_differences()) if remote else []
    differing = [{"mediaId": item.media_id, "problem": item.problem} for item in differences]
    warnings = database.warnings()
    for warning in warnings:
        note(warning)
    if as_json:
        report = {"damage": [asdict(item) for item in damage], "broken": broken, "warnings": warnings}
        show_json(report | ({"differences": differing} if remote else {}))
    elif damage:
        show_table(("table", "problem"), [(item.table, item.problem) for item in damage])
    if (broken or differing) and not as_json:
        show_table(("media", "problem"), [(row["mediaId"], row["problem"]) for row in [*broken, *differing]])
    if any(item.state in (RemoteState.MISSING, RemoteState.BEHIND) for item in differences):
        note("To send again what is missing or behind, run: flask outbox resend --missing")
    if damage:
        note(f"The database is damaged: {RESCUE}.")
    if damage or broken or differing:
        raise SystemExit(BROKEN)
    note("Every invariant holds.")


def _damage() -> list[Damage]:
    with progress_bar("reading pages") as on_progress:
        return get_services().outbox_admin.find_damage(on_progress)


def _broken(damage: list[Damage]) -> list[dict[str, str]]:
    """Return the broken invariants, as far as a damaged database can be read."""
    try:
        with progress_bar("checking") as on_progress:
            return get_services().outbox_admin.find_broken_invariants(on_progress)
    except DatabaseDamaged as error:
        if not damage:
            damage.append(Damage("", error.advice))
        note("The invariants cannot be checked, because the database cannot be read.")
        return []


def _differences() -> Iterator[Difference]:
    try:
        for _, difference in _auditor().comparisons():
            if difference.state is not RemoteState.SAME:
                yield difference
    except Unavailable as error:
        raise click.ClickException(f"The annotations service cannot be queried: {error}") from error


def _auditor() -> RemoteAuditor:
    auditor = get_services().auditor()
    if auditor is None:
        raise click.ClickException("ANNOTATIONS_URL is not set.")
    return auditor
