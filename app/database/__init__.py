"""Database access: read and write transactions, tables, leases, and the meaning of database errors."""

from app.database.engine import Database
from app.database.queries import Queries
from app.database.transactions import ReadTransaction, Topic, WriteTransaction

__all__ = ["Database", "Queries", "ReadTransaction", "Topic", "WriteTransaction"]
