"""Statements of the upload's path, handed to SQLite's driver directly: SQLAlchemy spends several times as long on
running one as SQLite itself, and every upload runs five.

They are SQLAlchemy's all the same, in its words and with its types, worked out once; only the running goes past it.
PostgreSQL's go the usual way, which knows how connections break: there the wait for the server is what counts.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, Insert, Select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection

_DIALECT = sqlite.dialect(paramstyle="named")

Row = Sequence[Any]


class Direct:
    """One statement. `columns` are those that an INSERT is given in each of its rows."""

    def __init__(self, statement: Insert | Select[*tuple[Any, ...]], columns: Iterable[str] | None = None) -> None:
        self._statement = statement
        compiled = statement.compile(dialect=_DIALECT, column_keys=None if columns is None else list(columns))
        self._text = str(compiled)
        self._not_given = {name: bound for name, bound in compiled.binds.items() if not bound.required}
        converters = ((name, _converter(bound)) for name, bound in compiled.binds.items())
        self._converters = {name: convert for name, convert in converters if convert is not None}

    def insert(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows, in the transaction that the connection is in. Raises SQLAlchemy's DBAPIError."""
        if connection.dialect.name != "sqlite":
            connection.execute(self._statement, rows)
            return
        prepared = [self._prepared(row) for row in rows]
        try:
            _driver(connection.connection).executemany(self._text, prepared)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def first(self, connection: Connection | PoolProxiedConnection, parameters: Mapping[str, Any]) -> Row | None:
        """The first row of a SELECT, if there is one. Raises SQLAlchemy's DBAPIError."""
        if isinstance(connection, Connection):
            if connection.dialect.name != "sqlite":
                return connection.execute(self._statement, parameters).first()
            connection = connection.connection
        try:
            row: Row | None = _driver(connection).execute(self._text, self._prepared(parameters)).fetchone()
        except sqlite3.Error as error:
            raise self._translated(error) from error
        return row

    def _prepared(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._not_given and not self._converters:
            return parameters
        prepared: dict[str, Any] = {name: bound.effective_value for name, bound in self._not_given.items()}
        prepared.update(parameters)
        for name, convert in self._converters.items():
            prepared[name] = convert(prepared[name])
        return prepared

    def _translated(self, error: sqlite3.Error) -> BaseException:
        return DBAPIError.instance(self._text, None, error, sqlite3.Error, dialect=_DIALECT)


def _converter(bound: BindParameter[Any]) -> Callable[[Any], Any] | None:
    """What makes SQLite's value of one of Python's; None where they are the same."""
    return bound.type.dialect_impl(_DIALECT).bind_processor(_DIALECT)


def _driver(connection: PoolProxiedConnection) -> sqlite3.Connection:
    driver = connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver
