"""Finds damage in an SQLite database: checks the pages of each table and compares each index with its table.

SQLite's quick_check does not compare indexes with tables, and integrity_check holds one snapshot for all of it. Here
each table, and each batch of rows, has a session of its own. Nothing here begins or commits a transaction.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.errors import DatabaseDamaged

BATCH_ROWS = 5000
MAX_REPORTED = 20
"""Problems that are reported for each table."""

_PAGE = re.compile(r"page (\d+)")

OpenSession = Callable[[], AbstractContextManager[Session]]


@dataclass(frozen=True, slots=True)
class Damage:
    """A problem of a table; the text names the page if SQLite does."""

    table: str
    problem: str


@dataclass(frozen=True, slots=True)
class _Index:
    name: str
    matches: str
    """SQL that compares the row `x`, found by the index, with the row `t` of the table."""
    condition: str
    """SQL of the rows that the index holds."""


def find_damage(
    opened: OpenSession, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Iterator[Damage]:
    """Yield all damage found. `opened` returns a session for one batch; `on_progress(done, total)` counts rows."""
    try:
        with opened() as session:
            tables = _tables(session.connection())
    except DatabaseDamaged as error:
        yield Damage("", str(error.__cause__ or error))
        return
    done, total = 0, sum(tables.values())
    for table, rows in tables.items():
        found = list(_checked(opened, table))
        if not found:
            found = list(_compared(opened, table, lambda count: on_progress(min(done + count, total), total)))  # noqa: B023
        yield from found[:MAX_REPORTED]
        done += rows
        on_progress(done, total)


def _tables(connection: Connection) -> dict[str, int]:
    """Return every table with an estimate of its number of rows."""
    named = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").scalars()
    return {name: _last(connection, name) for name in named if not name.startswith("sqlite_")}


def _last(connection: Connection, table: str) -> int:
    try:
        return connection.exec_driver_sql(f'SELECT max(rowid) FROM "{table}" NOT INDEXED').scalar() or 0  # noqa: S608
    except DBAPIError:  # the check of the table reports the damage
        return 0


def _checked(opened: OpenSession, table: str) -> Iterator[Damage]:
    """Yield the problems that quick_check finds in a table and its indexes, one for each page."""
    try:
        with opened() as session:
            said = session.connection().exec_driver_sql(f'PRAGMA quick_check("{table}")').scalars().all()
    except DatabaseDamaged as error:
        yield Damage(table, str(error.__cause__ or error))
        return
    pages: set[str] = set()
    for line in dict.fromkeys(line for text in said for line in text.splitlines()):
        page = _PAGE.search(line)
        if line == "ok" or line.startswith("***") or (page and page[1] in pages):
            continue
        if page:
            pages.add(page[1])
        yield Damage(table, line)


def _compared(opened: OpenSession, table: str, on_rows: Callable[[int], None]) -> Iterator[Damage]:
    """Yield indexes that miss rows of their table or hold more entries than it has rows."""
    try:
        with opened() as session:
            indexes = _indexes(session.connection(), table)
            for index in indexes:
                yield from _counted(session.connection(), table, index)
        after, done = -1, 0
        while True:
            with opened() as session:
                last = _batch_end(session.connection(), table, after)
                if last is None:
                    return
                for index in indexes:
                    yield from _missing(session.connection(), table, index, (after, last))
            after, done = last, done + BATCH_ROWS
            on_rows(done)
    except DatabaseDamaged as error:
        yield Damage(table, str(error.__cause__ or error))


def _indexes(connection: Connection, table: str) -> list[_Index]:
    rows = connection.exec_driver_sql(
        "SELECT i.name, m.sql FROM pragma_index_list(?) AS i JOIN sqlite_master AS m ON m.name = i.name", (table,)
    ).all()
    found = []
    for name, sql in rows:
        columns = connection.exec_driver_sql(
            "SELECT name FROM pragma_index_xinfo(?) WHERE key AND name IS NOT NULL ORDER BY seqno", (name,)
        ).scalars()
        matches = " AND ".join([*(f'x."{column}" IS t."{column}"' for column in columns), "x.rowid = t.rowid"])
        _, _, condition = re.sub(r"\s+", " ", sql or "").partition(" WHERE ")
        found.append(_Index(name, matches, condition or "1"))
    return found


def _counted(connection: Connection, table: str, index: _Index) -> Iterator[Damage]:
    by_index, by_table = (
        connection.exec_driver_sql(f'SELECT count(*) FROM "{table}" {way} WHERE {index.condition}').scalar_one()  # noqa: S608
        for way in (f'INDEXED BY "{index.name}"', "NOT INDEXED")
    )
    if by_index != by_table:
        yield Damage(table, f"the index {index.name} has {by_index} entries for {by_table} rows")


def _batch_end(connection: Connection, table: str, after: int) -> int | None:
    """Return the last rowid of the batch of rows after `after`; None if there are no more."""
    found: int | None = connection.exec_driver_sql(
        f'SELECT max(rowid) FROM (SELECT rowid FROM "{table}" NOT INDEXED WHERE rowid > ? ORDER BY rowid LIMIT ?)',  # noqa: S608
        (after, BATCH_ROWS),
    ).scalar()
    return found


def _missing(connection: Connection, table: str, index: _Index, within: tuple[int, int]) -> Iterator[Damage]:
    lost = connection.exec_driver_sql(
        f'SELECT count(*) FROM "{table}" AS t NOT INDEXED WHERE rowid > ? AND rowid <= ? AND ({index.condition})'  # noqa: S608
        f' AND NOT EXISTS (SELECT 1 FROM "{table}" AS x INDEXED BY "{index.name}"'
        f" WHERE {index.matches} AND ({index.condition}))",
        within,
    ).scalar_one()
    if lost:
        yield Damage(table, f"the index {index.name} does not find {lost} rows, of those up to rowid {within[1]}")
