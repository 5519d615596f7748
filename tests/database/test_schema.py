"""The comparison of the database's migration with the code's, on each kind of database."""

import io

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from app.database import Database, schema
from tests.paths import ROOT


def stamp(database: Database, revision: str) -> str | None:
    with database.write_transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    with database.read_transaction() as session:
        return schema.mismatch(session)


def test_a_migrated_database_is_fit(database: Database) -> None:
    with database.read_transaction() as session:
        assert schema.mismatch(session) is None


def test_one_that_is_behind_or_ahead_is_not_and_says_where_it_stands(database: Database) -> None:
    head, *earlier = schema.revisions()
    for revision in earlier:
        behind = stamp(database, revision)
        assert behind is not None
        assert all(part in behind for part in (revision, head, "alembic upgrade head"))
    ahead = stamp(database, "9999")
    assert ahead is not None
    assert all(part in ahead for part in ("9999", head, "newer"))
    assert "upgrade head" not in ahead


def test_the_migrations_that_the_code_knows_are_those_that_alembic_has() -> None:
    told = io.StringIO()
    command.heads(Config(ROOT / "alembic.ini", stdout=told))
    assert told.getvalue().split()[0] == schema.revisions()[0]
