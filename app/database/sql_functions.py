"""SQL functions that SQLite and PostgreSQL spell differently."""

from typing import Any

from sqlalchemy import BigInteger, Double
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction


class database_now(GenericFunction[float]):  # noqa: N801 (named as the SQL function it stands for)
    """The database's clock in seconds since 1970 UTC, which all processes and hosts share.

    Each occurrence in a statement has one value throughout the statement.
    """

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(_element: database_now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"  # unixepoch('subsec') is NULL before 3.42


@compiles(database_now, "postgresql")
def _postgres_now(_element: database_now, _compiler: SQLCompiler, **_options: Any) -> str:
    # As a scalar subselect it is evaluated once and can bound an index scan. clock_timestamp() alone is volatile, so a
    # comparison with it is a filter, and the index is read to its end.
    return "(SELECT extract(epoch from clock_timestamp())::double precision)"


class floor_to_int(GenericFunction[int]):  # noqa: N801 (named as the SQL functions are)
    """The integer part of a number that is not negative."""

    type = BigInteger()
    inherit_cache = True


@compiles(floor_to_int, "sqlite")
def _sqlite_floor(element: floor_to_int, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS INTEGER)"  # some builds lack floor()


@compiles(floor_to_int, "postgresql")
def _postgres_floor(element: floor_to_int, compiler: SQLCompiler, **options: Any) -> str:
    return f"floor({compiler.process(element.clauses, **options)})::bigint"  # a cast alone would round


def upsert(session: Session, table: type[DeclarativeBase]) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that supports ON CONFLICT, for the session's SQL dialect."""
    return postgresql.insert(table) if session.get_bind().dialect.name == "postgresql" else sqlite.insert(table)
