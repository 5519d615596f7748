"""The two kinds of transaction, as the objects that run statements in them.

`Database.read_transaction` and `Database.write_transaction` begin and end them. A function that only reads takes any
Session; one that writes takes a WriteTransaction, so its signature says that it changes something.

Both are sessions over one connection, `core`. It runs the statements of the hot path, which are about tables: what a
session adds for mapped objects costs more than SQLite spends on such a statement.
"""

from enum import Enum
from typing import NoReturn

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import ORMExecuteState, Session


class Topic(Enum):
    """What a transaction adds for others to work on."""

    MESSAGES = "messages"
    RUNS = "runs"


class ReadTransaction(Session):
    """Runs statements that change nothing; one that would change something raises InvalidRequestError.

    On SQLite all of them see one state of the database. On PostgreSQL each sees what is committed when it begins, and
    is a transaction of its own on the server: there is nothing to begin and to roll back, after which psycopg would
    forget every statement that it has prepared.
    """

    def __init__(self, core: Connection) -> None:
        super().__init__(core, autoflush=False, expire_on_commit=False)
        self.core = core

    def flush(self, objects: object = None) -> NoReturn:
        """Refuse to write objects that were added or changed."""
        raise InvalidRequestError("A read transaction changes nothing.")


class WriteTransaction(Session):
    """Runs statements that are committed together, and takes note of whom to notify once they are.

    Ends with the transaction of its connection: it is never committed or rolled back by itself.
    """

    def __init__(self, core: Connection) -> None:
        super().__init__(core, autoflush=False, expire_on_commit=False, join_transaction_mode="rollback_only")
        self.core = core
        self.topics: set[Topic] = set()

    def notify(self, topic: Topic) -> None:
        """Wake this process's subscribers of the topic after the commit, and the listeners of other processes."""
        self.topics.add(topic)


@event.listens_for(ReadTransaction, "do_orm_execute")
def _refuse_changes(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise InvalidRequestError("A read transaction changes nothing.")
