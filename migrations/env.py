"""Runs migrations on the database of DATABASE_URL, or on the one that a caller puts into the configuration."""

from alembic import context
from alembic.util import CommandError

from app.db import Database
from app.errors import SettingsError
from app.models import Media
from app.settings import database_url_from_env

config = context.config
target = Media.metadata


def database_url() -> str:
    """The database to migrate; a wrong setting ends the command with one line instead of a traceback."""
    try:
        return config.get_main_option("sqlalchemy.url") or database_url_from_env()
    except SettingsError as error:
        raise CommandError(str(error)) from error


def migrate() -> None:
    """Every migration in one transaction; a failure leaves the database as it was."""
    database = Database(database_url())
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
