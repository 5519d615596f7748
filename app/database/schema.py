"""Compares the database's migration with the one that this code was written for."""

from functools import lru_cache
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

MIGRATIONS = Path(__file__).parents[2] / "migrations"


@lru_cache(1)
def revisions() -> tuple[str, ...]:
    """Return all migrations that this code knows, the last one first."""
    return tuple(script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions())


def schema_revision(session: Session) -> str | None:
    """Return the database's migration; None if it was never migrated."""
    connection = session.connection()
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = session.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def is_read_only(session: Session) -> bool:
    """Whether a PostgreSQL server refuses writes, because it is a standby or set to read-only."""
    on_postgres = session.get_bind().dialect.name == "postgresql"
    return on_postgres and session.scalar(text("SHOW transaction_read_only")) == "on"


def mismatch(session: Session) -> str | None:
    """Return how the database's schema differs from this code's, and what to do about it; None if it does not."""
    stands_at, (head, *earlier) = schema_revision(session), revisions()
    if stands_at == head:
        return None
    if stands_at is None:
        return "the database has not been migrated: run `alembic upgrade head`"
    if stands_at in earlier:
        return f"the database is at migration {stands_at}, this code needs {head}: run `alembic upgrade head`"
    return (
        f"the database is at migration {stands_at[:32]!r}, which is newer than this code's {head}:"
        " run the release that migrated it, or a later one"
    )
