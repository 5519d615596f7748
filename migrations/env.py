"""Runs migrations on the database of DATABASE_URL, or on the one that a caller puts into the configuration."""

from alembic import context

from app.db import Database
from app.models import Media
from app.settings import database_url_from_env

config = context.config
target = Media.metadata


def migrate() -> None:
    """Every migration in one transaction; a failure leaves the database as it was."""
    database = Database(config.get_main_option("sqlalchemy.url") or database_url_from_env())
    try:
        with database.engine.connect().execution_options(sqlite_begin="BEGIN IMMEDIATE") as connection:
            # SQLite alters a table by copying it; the copy is dropped while other tables still refer to its name.
            context.configure(
                connection=connection,
                target_metadata=target,
                render_as_batch=database.is_sqlite,
                transaction_per_migration=False,
            )
            with context.begin_transaction():
                context.run_migrations()
    finally:
        database.close()


migrate()
