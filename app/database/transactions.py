"""The two kinds of transaction, which `Database.read_transaction` and `Database.write_transaction` begin and end.

A function that only reads takes a Session; one that writes takes a WriteTransaction, so its signature shows that it
changes something.
"""

from enum import Enum
from typing import NoReturn

from sqlalchemy import Connection, Engine, event
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

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, autoflush=False, expire_on_commit=False)

    def flush(self, objects: object = None) -> NoReturn:
        """Refuse to write objects that were added or changed."""
        raise InvalidRequestError("A read transaction changes nothing.")


class WriteTransaction(Session):
    """Runs statements that are committed together, and notifies subscribers of topics after the commit.

    `core` runs frequent statements about tables: a session's handling of mapped objects would cost each of them as much
    as SQLite spends on it.
    """

    core: Connection

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, autoflush=False, expire_on_commit=False)
        self.topics: set[Topic] = set()

    def notify(self, topic: Topic) -> None:
        """Wake this process's subscribers of the topic after the commit, and the listeners of other processes."""
        self.topics.add(topic)


@event.listens_for(ReadTransaction, "do_orm_execute")
def _refuse_changes(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise InvalidRequestError("A read transaction changes nothing.")
