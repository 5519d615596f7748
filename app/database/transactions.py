"""The two kinds of transaction, which `Database.read_transaction` and `Database.write_transaction` begin and end.

A function that only reads takes a Session; one that writes takes a WriteTransaction, so its signature shows that it
changes something.

Both are sessions over one connection, `core`, which runs the frequent statements about tables: a session's handling of
mapped objects costs more than SQLite spends on such a statement.
"""

from enum import Enum
from typing import NoReturn

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import ORMExecuteState, Session


class Topic(Enum):
    """What a commit adds that others work on."""

    MESSAGES = "messages"
    RUNS = "runs"


class ReadTransaction(Session):
    """Runs statements that change nothing; others raise InvalidRequestError.

    On SQLite all statements read one snapshot. On PostgreSQL each statement reads its own snapshot, in autocommit mode:
    a rollback at the end would make psycopg forget its prepared statements.
    """

    def __init__(self, core: Connection) -> None:
        super().__init__(core, autoflush=False, expire_on_commit=False)
        self.core = core

    def flush(self, objects: object = None) -> NoReturn:
        """Refuse to write objects that were added or changed."""
        raise InvalidRequestError("A read transaction changes nothing.")


class WriteTransaction(Session):
    """Runs statements that are committed together, and notifies subscribers of topics after the commit.

    It never commits or rolls back by itself: it ends with the transaction of its connection.
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
