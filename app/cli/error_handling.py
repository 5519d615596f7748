"""Commands whose foreseeable errors are one line on standard error with exit code 1; only bugs show a traceback."""

import re
from typing import Any, NoReturn

import click
from sqlalchemy.exc import DBAPIError

from app.current import get_services
from app.errors import DatabaseFailed, DetectionsError

_NO_SUCH_SCHEMA = re.compile(r"no such (table|column)")
_POSTGRES_NO_SUCH_SCHEMA = ("42P01", "42703")
_FILE_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class _OneLineErrors(click.Command):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises click.ClickException for every foreseeable error."""
        try:
            return super().invoke(ctx)
        except DetectionsError as error:
            _fail(_service_error(error), error)
        except DBAPIError as error:
            _fail(_database_error(error), error)
        except _FILE_ERRORS as error:
            _fail(f"{error.filename}: {error.strerror}", error)


class Command(_OneLineErrors):
    """A command that is not in a group."""


class Group(_OneLineErrors, click.Group):
    """A group of commands."""


def _service_error(error: DetectionsError) -> str:
    if isinstance(error, DatabaseFailed):
        url = get_services().database.url
        names_database = str(url.database) in error.advice
        return error.advice if names_database else f"{url.render_as_string(hide_password=True)}: {error.advice}"
    cause = error.__cause__
    return f"{error} ({cause.orig})" if isinstance(cause, DBAPIError) else str(error)


def _fail(text: str, error: Exception) -> NoReturn:
    raise click.ClickException(" ".join(text.split())) from error


def _database_error(error: DBAPIError) -> str:
    database, message = get_services().database.url.render_as_string(hide_password=True), str(error.orig)
    if getattr(error.orig, "sqlstate", None) in _POSTGRES_NO_SUCH_SCHEMA or _NO_SUCH_SCHEMA.search(message):
        first_line = message.splitlines()[0]
        return f"The database {database} is not migrated to this version ({first_line}): run `alembic upgrade head`."
    return f"The database {database} failed: {message}"
