"""Counts and lists the statements of some work, and adds a backlog to show that the cost does not depend on it."""

from types import TracebackType
from typing import Any, Self

from sqlalchemy import event, insert, text

from app.database import Database
from app.database.models import Media, OutboxMessage, OutboxStream

LATER = 1_000_000.0


class Counter:
    """Counts the statements sent to a database, without BEGIN and COMMIT."""

    def __init__(self, database: Database) -> None:
        self._engines = {database.reader, database.writer}
        self.statements: list[tuple[str, Any]] = []

    @property
    def count(self) -> int:
        return len(self.statements)

    def __enter__(self) -> Self:
        for engine in self._engines:
            event.listen(engine, "before_cursor_execute", self._note)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        for engine in self._engines:
            event.remove(engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if not statement.upper().startswith(("BEGIN", "PRAGMA")):
            self.statements.append((statement, parameters))


def add_backlog(database: Database, count: int, *, due_at: float, delivered: bool = False, user_id: str = "u") -> None:
    """Add media items with one message each, which waits until `due_at` or was delivered then."""
    ids = [f"{number:015x}b" for number in range(count)]
    media = [
        {
            "id": media_id,
            "name": "old.jpg",
            "path": f"/images/{media_id}.jpg",
            "media_type": "Image",
            "media_status": 1,
            "user_id": user_id,
            "size_bytes": 1,
            "created_at": 1.0,
        }
        for media_id in ids
    ]
    streams = [
        {
            "media_id": media_id,
            "user_id": user_id,
            "last_seq": 1,
            "acked_seq": 1 if delivered else 0,
            "due_at": None if delivered else due_at,
            "lease_epoch": 0,
            "attempts": 0,
            "failures": 0,
            "counted_attempts": 0,
            "outcome_unknown": False,
            "waiting_since": None if delivered else 1.0,
        }
        for media_id in ids
    ]
    messages = [
        {
            "media_id": media_id,
            "seq": 1,
            "kind": "create",
            "payload": {"mediaStatus": 1},
            "idempotency_key": media_id,
            "user_id": user_id,
            "created_at": 1.0,
            "delivered_at": due_at if delivered else None,
            "outcome": "accepted" if delivered else None,
        }
        for media_id in ids
    ]
    with database.write_transaction() as session:
        session.execute(insert(Media), media)
        session.execute(insert(OutboxStream), streams)
        session.execute(insert(OutboxMessage), messages)
    with database.write_transaction() as session:
        session.execute(text("ANALYZE"))
