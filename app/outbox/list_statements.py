"""Statements about many rows at once take them as one parameter, in a form that each database searches by index.

`ListStatements` is made for one dialect and one clock, and holds no state.
"""

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
    """`now` is the database's clock as an SQL expression."""

    dialect: str
    now: ColumnElement[float]

    def among(self, column: ColumnElement[str]) -> ColumnElement[bool]:
        """Is it in the list `media`? One parameter however long the list, in a form that both search by index."""
        if self.dialect == "postgresql":
            return column == any_(bindparam("media", type_=ARRAY(String)))
        return column.in_(select(func.json_each(bindparam("media", type_=JSON())).table_valued("value").c.value))

    def matches(self, column: ColumnElement[str], key: ColumnElement[str]) -> ColumnElement[bool]:
        """Is it this key of one of the `rows`, in a form that both search by index?

        PostgreSQL would read the whole table to join it with the rows, but for an array of their keys beside them;
        SQLite would go through all the rows for each key of such a list.
        """
        if self.dialect != "postgresql":
            return column == key
        keys = self.rows(Column(key.key, key.type)).scalar_subquery()
        return and_(column == key, column == any_(func.array(keys)))

    def rows(self, *columns: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
        """The list `rows` as a table of these columns: one parameter too, because hundreds of them take their time."""
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
