"""Statements about many rows, which take the rows as one JSON or array parameter and find them by an index."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    Column,
    ColumnElement,
    Select,
    String,
    and_,
    any_,
    bindparam,
    func,
    literal_column,
    select,
)


@dataclass(frozen=True)
class ListStatements:
    """Statements for one SQL `dialect`; `now` is the database's clock as an SQL expression."""

    dialect: str
    now: ColumnElement[float]

    def among(self, column: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that `column` is in the list parameter `media`, as an index condition."""
        if self.dialect == "postgresql":
            return column == any_(bindparam("media", type_=ARRAY(String)))
        return column.in_(select(func.json_each(bindparam("media", type_=JSON())).table_valued("value").c.value))

    def matches(self, column: ColumnElement[str], key: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that `column` equals the key of one of the `rows`, as an index condition.

        PostgreSQL would scan the table for the join, unless it also gets an array of the keys. SQLite would go through
        all rows for each key of such an array.
        """
        if self.dialect != "postgresql":
            return column == key
        keys = self.rows(Column(key.key, key.type)).scalar_subquery()
        return and_(column == key, column == any_(func.array(keys)))

    def rows(self, *columns: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
        """Return the list parameter `rows` as a table with these columns; hundreds of parameters would be slow."""
        given = bindparam("rows", type_=JSON())
        if self.dialect == "postgresql":
            typed = [Column(column.key, column.type) for column in columns]
            table = func.json_to_recordset(given).table_valued(*typed, name="given").render_derived(with_types=True)
            return select(*table.c)
        value = func.json_each(given).table_valued("value", name="given").c.value
        return select(
            *(
                func.json_extract(value, literal_column(f"'$.{column.key}'"), type_=column.type).label(column.key)
                for column in columns
            )
        )
