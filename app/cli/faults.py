"""Foreseeable faults as one line on standard error and exit code 1: a traceback is for defects of ours alone."""

import re
from typing import Any, NoReturn

import click
from sqlalchemy.exc import DBAPIError

from app.current import get_services
from app.errors import DatabaseFailed, DetectionsError

_NO_SUCH_SCHEMA = re.compile(r"no such (table|column)")
_POSTGRES_NO_SUCH_SCHEMA = ("42P01", "42703")
_FILE_FAULTS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class _OneLineForFaults(click.Command):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; raises click.ClickException for every foreseeable fault."""
        try:
            return super().invoke(ctx)
        except DetectionsError as error:
            _end(_of_ours(error), error)
        except DBAPIError as error:
            _end(_of_database(error), error)
        except _FILE_FAULTS as error:
            _end(f"{error.filename}: {error.strerror}", error)


class Command(_OneLineForFaults):
    """A command without a group."""


class Group(_OneLineForFaults, click.Group):
    """A group of commands."""


def _of_ours(error: DetectionsError) -> str:
    if isinstance(error, DatabaseFailed):
        url = get_services().database.url
        named = str(url.database) in error.advice
        return error.advice if named else f"{url.render_as_string(hide_password=True)}: {error.advice}"
    cause = error.__cause__
    return f"{error} ({cause.orig})" if isinstance(cause, DBAPIError) else str(error)


def _end(text: str, error: Exception) -> NoReturn:
    raise click.ClickException(" ".join(text.split())) from error


def _of_database(error: DBAPIError) -> str:
    database, words = get_services().database.url.render_as_string(hide_password=True), str(error.orig)
    if getattr(error.orig, "sqlstate", None) in _POSTGRES_NO_SUCH_SCHEMA or _NO_SUCH_SCHEMA.search(words):
        first = words.splitlines()[0]
        return f"The database {database} is not migrated to this version ({first}): run `alembic upgrade head`."
    return f"The database {database} refused: {words}"
