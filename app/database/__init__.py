"""The database: the two ways to a transaction on it, its tables, and what its failures mean."""

from app.database.engine import Database
from app.database.queries import Queries
from app.database.transactions import ReadTransaction, Topic, WriteTransaction

__all__ = ["Database", "Queries", "ReadTransaction", "Topic", "WriteTransaction"]
