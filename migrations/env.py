"""Runs migrations on the database of DATABASE_URL, or on the one that a caller puts into the configuration."""

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

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
            if database.is_sqlite:
                _let_tables_be_copied(connection)
            context.configure(
                connection=connection,
                target_metadata=target,
                render_as_batch=database.is_sqlite,
                transaction_per_migration=False,
                transactional_ddl=True,  # alembic takes SQLite for a database that cannot, because of its driver's ways
            )
            with context.begin_transaction():
                context.run_migrations()
                if database.is_sqlite:
                    _check_references(connection)
    finally:
        database.close()


def _let_tables_be_copied(connection: Connection) -> None:
    """SQLite alters a table by copying it and dropping the old one. With foreign keys enforced, that would first delete
    every row that refers to the old one. They can only be switched off outside a transaction; the connection is this
    command's own, and closed behind it.
    """
    connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")


def _check_references(connection: Connection) -> None:
    """What was not enforced meanwhile holds at the end, or nothing is committed."""
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        tables = ", ".join(sorted({row[0] for row in broken}))
        raise CommandError(f"Nothing was migrated: rows of {tables} would refer to rows that are not there.")


migrate()
