"""Runs queries, each in a read transaction of its own.

A query is a function that takes the open transaction and returns what it read. This module begins transactions.
"""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from app.database.engine import Database
from app.database.transactions import ReadTransaction

P = ParamSpec("P")
T = TypeVar("T")


class Queries:
    """Runs queries on one database. `statement_seconds` replaces the time limit of their statements."""

    def __init__(self, database: Database, *, statement_seconds: float | None = None) -> None:
        self._database = database
        self._statement_seconds = statement_seconds

    def fetch(self, query: Callable[Concatenate[ReadTransaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `query(transaction, *args, **kwargs)` and return its result. Raises as a read transaction does."""
        with self._database.read_transaction(statement_seconds=self._statement_seconds) as transaction:
            return query(transaction, *args, **kwargs)
