"""`flask outbox verify`: SQLite's pages and indexes, the invariants, and with --remote what the other side has."""

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
            1: "the annotations service cannot be asked, or something failed",
            BROKEN: "one is broken, the database is damaged, or the other side differs",
        },
    ),
)
@click.option("--remote", is_flag=True, help="Compare with what the annotations service has, too.")
@json_option
@with_appcontext
def verify(remote: bool, as_json: bool) -> None:
    """Check that the database is sound, and the invariants on the stored rows."""
    database = get_services().database
    damage = _damage() if database.is_sqlite else []
    broken = _broken(damage)
    differences = list(_differences()) if remote else []
    unlike = [{"mediaId": one.media_id, "problem": one.problem} for one in differences]
    warnings = database.warnings()
    for warning in warnings:
        note(warning)
    if as_json:
        found = {"damage": [asdict(one) for one in damage], "broken": broken, "warnings": warnings}
        show_json(found | ({"differences": unlike} if remote else {}))
    elif damage:
        show_table(("table", "problem"), [(one.table, one.problem) for one in damage])
    if (broken or unlike) and not as_json:
        show_table(("media", "problem"), [(row["mediaId"], row["problem"]) for row in [*broken, *unlike]])
    if any(one.state in (RemoteState.MISSING, RemoteState.BEHIND) for one in differences):
        note("To say again what is missing or behind there: flask outbox resend --missing")
    if damage:
        note(f"The database is damaged: {RESCUE}.")
    if damage or broken or unlike:
        raise SystemExit(BROKEN)
    note("Every invariant holds.")


def _damage() -> list[Damage]:
    with progress_bar("reading pages") as on_progress:
        return get_services().outbox_admin.find_damage(on_progress)


def _broken(damage: list[Damage]) -> list[dict[str, str]]:
    """The broken invariants, as far as a damaged database can be read."""
    try:
        with progress_bar("checking") as on_progress:
            return get_services().outbox_admin.find_broken_invariants(on_progress)
    except DatabaseDamaged as error:
        if not damage:
            damage.append(Damage("", error.advice))
        note("The invariants cannot be checked, because what they are asked of cannot be read.")
        return []


def _differences() -> Iterator[Difference]:
    try:
        for _, difference in _auditor().comparisons():
            if difference.state is not RemoteState.SAME:
                yield difference
    except Unavailable as error:
        raise click.ClickException(f"The annotations service cannot be asked: {error}") from error


def _auditor() -> RemoteAuditor:
    auditor = get_services().auditor()
    if auditor is None:
        raise click.ClickException("ANNOTATIONS_URL is not set: there is nothing to compare with.")
    return auditor
