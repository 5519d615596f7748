"""Does the database stand at the migration that this code was written for?

What the code expects is read from its migrations once for the process; what the database has is one row.
"""

from functools import lru_cache
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

MIGRATIONS = Path(__file__).parents[2] / "migrations"


@lru_cache(1)
def revisions() -> tuple[str, ...]:
    """Every migration that this code knows, the last one first."""
    return tuple(script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions())


def schema_revision(session: Session) -> str | None:
    """The migration that the database stands at; None where it was never migrated."""
    connection = session.connection()
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = session.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def is_read_only(session: Session) -> bool:
    """Whether a transaction may not write: on a PostgreSQL that is a standby, or was set so, as for a full disk."""
    on_postgres = session.get_bind().dialect.name == "postgresql"
    return on_postgres and session.scalar(text("SHOW transaction_read_only")) == "on"


def mismatch(session: Session) -> str | None:
    """Why the database is not fit for this code, and what to do about it; None where it is."""
    stands_at, (head, *earlier) = schema_revision(session), revisions()
    if stands_at == head:
        return None
    if stands_at is None:
        return "the database has not been migrated: run `alembic upgrade head`"
    if stands_at in earlier:
        return f"the database stands at migration {stands_at}, this code needs {head}: run `alembic upgrade head`"
    return (
        f"the database stands at migration {stands_at[:32]!r}, which is newer than this code, which knows {head}:"
        " run the release that migrated it, or a later one"
    )
