"""SQL functions that SQLite and PostgreSQL spell differently."""

from typing import Any

from sqlalchemy import BigInteger, Double
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction


class database_now(GenericFunction[float]):  # noqa: N801 (named as the SQL function it stands for)
    """The database's clock, in seconds since 1970 UTC: the one clock that all processes and hosts share.

    One occurrence in a statement has one value throughout the statement.
    """

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(_element: database_now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"  # unixepoch('subsec') is NULL before 3.42


@compiles(database_now, "postgresql")
def _postgres_now(_element: database_now, _compiler: SQLCompiler, **_options: Any) -> str:
    # In a SELECT of its own it is asked once for a statement, and may bound an index scan. By itself it is volatile: a
    # comparison with it is a filter, for which the index is read to its end.
    return "(SELECT extract(epoch from clock_timestamp())::double precision)"


class floor_to_int(GenericFunction[int]):  # noqa: N801 (named as the SQL functions are)
    """The whole part of a number that is not negative."""

    type = BigInteger()
    inherit_cache = True


@compiles(floor_to_int, "sqlite")
def _sqlite_floor(element: floor_to_int, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS INTEGER)"  # floor() is not in every build


@compiles(floor_to_int, "postgresql")
def _postgres_floor(element: floor_to_int, compiler: SQLCompiler, **options: Any) -> str:
    return f"floor({compiler.process(element.clauses, **options)})::bigint"  # a cast alone would round


def upsert(session: Session, table: type[DeclarativeBase]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that knows ON CONFLICT, in the words of the session's database."""
    return postgresql.insert(table) if session.get_bind().dialect.name == "postgresql" else sqlite.insert(table)
