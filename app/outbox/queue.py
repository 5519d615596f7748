"""The outbox's queue: enqueues messages and claims due streams.

`enqueue` increments `last_seq` under the lock of the stream's row, so sequence order is commit order. Nothing here
begins or commits a transaction.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row
from sqlalchemy.orm import Session

from app.database import Topic, WriteTransaction
from app.outbox.messages import Claim, Message, MessageKind, Reference
from app.outbox.statements import BEGIN_MESSAGE, BEGIN_STREAM, USERS_AT_ONCE, Statements, new_stream
from app.outbox.transition_statements import TransitionStatements


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to enqueue."""

    media_id: str
    kind: MessageKind
    payload: dict[str, Any]
    user_id: str
    request_id: str | None


class OutboxQueue:
    """Runs the queue's statements. `now` is the database's clock as an SQL expression."""

    def __init__(self, now: ColumnElement[float]) -> None:
        self.now = now
        self._by_dialect: dict[str, Statements] = {}
        self._transitions_by_dialect: dict[str, TransitionStatements] = {}

    def enqueue(
        self,
        transaction: WriteTransaction,
        media_id: str,
        kind: MessageKind,
        payload: dict[str, Any],
        *,
        user_id: str,
        request_id: str | None,
    ) -> int:
        """Append a message to its media item's stream, in the caller's transaction; return its sequence number."""
        statements = self.statements(transaction)
        media = {"media": media_id, "user_id": user_id}
        message = _given_columns(NewMessage(media_id, kind, payload, user_id, request_id))
        if statements.dialect == "postgresql":
            transaction.notify(Topic.MESSAGES)
            return int(transaction.core.execute(statements.enqueue, media | message).scalar_one())
        seq = transaction.core.execute(statements.advance, media).scalar_one()
        transaction.core.execute(statements.add_message, message | {"seq": seq})
        transaction.notify(Topic.MESSAGES)
        return seq

    def begin_with_media(
        self, transaction: WriteTransaction, media: Mapping[str, Any], first: NewMessage, now: float
    ) -> None:
        """Insert a media row, its stream and its first message in one statement; for PostgreSQL only.

        Raises IntegrityError if the media id exists.
        """
        values = {**media, **_given_columns(first), "now": now}
        transaction.core.execute(self.statements(transaction).begin, values)
        transaction.notify(Topic.MESSAGES)

    def begin_streams(self, transaction: WriteTransaction, first: Sequence[NewMessage], now: float) -> None:
        """Insert streams with their first messages, due at `now`, in the caller's transaction."""
        transaction.core.execute(
            BEGIN_STREAM, [new_stream(message.media_id, message.user_id, now) for message in first]
        )
        rows = [{**_given_columns(message), "seq": 1, "created_at": now} for message in first]
        transaction.core.execute(BEGIN_MESSAGE, rows)
        transaction.notify(Topic.MESSAGES)

    def next_due_in(self, session: Session, *, since: float = 0.0, media_id: str | None = None) -> float | None:
        """Return the seconds until a stream may be claimed, negative if overdue; None if none waits.

        Considers streams due at `since` or later, or the stream of `media_id`.
        """
        statements = self.statements(session)
        due_in: float | None = (
            session.scalar(statements.next_due_in, {"since": since})
            if media_id is None
            else session.scalar(statements.media_due_in, {"media": media_id})
        )
        return due_in

    def claim(
        self,
        session: WriteTransaction,
        owner: str,
        limit: int,
        lease: float,
        *,
        since: float = 0.0,
        media_id: str | None = None,
        users: Sequence[str] = (),
    ) -> list[Claim]:
        """Lease up to `limit` due streams for `lease` seconds, the longest due first; return their head messages.

        Claims only streams due at `since` or later. `media_id` limits the claim to one stream; `users`, at most
        USERS_AT_ONCE, to the streams of these users, `limit` for each.
        """
        statements = self.statements(session)
        wanted = {"owner": owner, "limit": limit, "lease": lease, "since": since}
        if media_id is not None:
            rows = session.core.execute(statements.claim_due_of_media, wanted | {"media": media_id}).all()
        elif users:
            named: dict[str, str | None] = dict.fromkeys(f"user_{position}" for position in range(USERS_AT_ONCE))
            named |= {f"user_{position}": user_id for position, user_id in enumerate(users)}
            rows = session.core.execute(statements.claim_due_of_users, wanted | named).all()
        else:
            rows = session.core.execute(statements.claim_due, wanted).all()
        if statements.dialect == "postgresql":
            return [_claim(row) for row in rows]
        return self._heads(session, [row.media_id for row in rows])

    def users_waiting(
        self, session: Session, endpoint: str, *, after: str, limit: int, since: float = 0.0
    ) -> list[str]:
        """Return up to `limit` users with ids above `after` who have a due stream and are not held at `endpoint`."""
        parameters = {"endpoint": endpoint, "after": after, "limit": limit, "since": since}
        return list(session.scalars(self.statements(session).users_waiting, parameters))

    def continue_with(self, session: Session, claims: Iterable[Claim]) -> list[Claim]:
        """Return claims of the next messages of streams that stay leased."""
        return self._heads(session, [claim.message.media_id for claim in claims])

    def still_leased(self, session: Session, claims: Sequence[Claim]) -> set[str]:
        """Lock the streams of claims whose leases still hold, until the transaction ends; return their media ids."""
        media = [claim.message.media_id for claim in claims]
        parameters = {"media": media, "rows": [claim.as_row for claim in claims]}
        return set(session.scalars(self.transition_statements(session).leased, parameters))

    def last_delivery(self, session: Session) -> float | None:
        """Return when a message was last delivered, in seconds since 1970."""
        found: float | None = session.scalar(self.transition_statements(session).last_delivery)
        return found

    def reference(self, session: Session, media_id: str) -> Reference | None:
        """Return another media item that the other side has accepted; None if there is none."""
        row = session.execute(self.transition_statements(session).reference, {"media": media_id}).first()
        return Reference(row.media_id, row.user_id) if row else None

    def _heads(self, session: Session, media_ids: Sequence[str]) -> list[Claim]:
        if not media_ids:
            return []
        heads = self.statements(session).heads
        return [_claim(row) for row in session.execute(heads, {"media": media_ids})]

    def statements(self, session: Session) -> Statements:
        """Return the statements for the session's SQL dialect."""
        dialect = session.get_bind().dialect.name
        if dialect not in self._by_dialect:
            self._by_dialect[dialect] = Statements(dialect, self.now)
        return self._by_dialect[dialect]

    def transition_statements(self, session: Session) -> TransitionStatements:
        """Return the statements that apply transitions, for the session's SQL dialect."""
        dialect = session.get_bind().dialect.name
        if dialect not in self._transitions_by_dialect:
            self._transitions_by_dialect[dialect] = TransitionStatements(dialect, self.now)
        return self._transitions_by_dialect[dialect]


def _claim(row: Row[Any]) -> Claim:
    message = Message(
        media_id=row.media_id,
        seq=row.seq,
        kind=MessageKind(row.kind),
        payload=row.payload,
        idempotency_key=row.idempotency_key,
        user_id=row.user_id,
        request_id=row.request_id,
        outcome_unknown=row.outcome_unknown,
        epoch=row.epoch,
        changed_at=row.changed_at,
    )
    return Claim(message, row.lease_epoch, row.attempts, row.failures, row.counted_attempts, row.refused_since)


def _given_columns(message: NewMessage) -> dict[str, Any]:
    return {
        "media_id": message.media_id,
        "kind": message.kind,
        "payload": message.payload,
        "idempotency_key": str(uuid.uuid4()),
        "user_id": message.user_id,
        "request_id": message.request_id,
    }
