"""Runs migrations on the database of DATABASE_URL, or on the one that a caller puts into the configuration."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from alembic import command, context
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.database import Database
from app.database.error_translation import translate_db_errors
from app.database.models import Media
from app.database.postgres_connection import PATIENT
from app.errors import DatabaseFailed, DetectionsError
from app.settings import DatabaseSettings

config = context.config
target = Media.metadata


def database_settings() -> DatabaseSettings:
    """Where to migrate: what a caller put into the configuration, or else what the environment says."""
    url = config.get_main_option("sqlalchemy.url")
    return DatabaseSettings(url=url) if url else DatabaseSettings.from_env()


def may_create() -> bool:
    """Whether a database that is not there is to be made: only `alembic upgrade` does, or a caller of its own."""
    return config.cmd_opts is None or config.cmd_opts.cmd[0] is command.upgrade


@contextmanager
def opened_database() -> Iterator[Database]:
    """The database; a foreseeable fault ends the command with one line instead of a traceback."""
    try:
        settings = database_settings()
        with (
            closing(
                Database(settings.url, limits=PATIENT, pooler=settings.pooler, may_create=may_create())
            ) as database,
            translate_db_errors(),
        ):
            database.check()
            yield database
    except DetectionsError as error:
        cause = error.__cause__
        reason = f" ({cause.orig})" if isinstance(cause, DBAPIError) else ""
        text = error.advice if isinstance(error, DatabaseFailed) else f"{error}{reason}"
        raise CommandError(" ".join(text.split())) from error


def migrate() -> None:
    """Every migration in one transaction; a failure leaves the database as it was."""
    with opened_database() as database, database.reader.connect() as connection:
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
