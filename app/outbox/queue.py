"""The outbox's SQL on the hot path: enqueue, claim, and the outcome of a try.

Nothing here begins or commits a transaction. A stream's row is the lock of its media: `enqueue` counts `last_seq` up
under it, so sequence order is commit order. Every outcome is fenced by the lease's epoch and by the sequence number:
a dispatcher that lost its lease changes nothing, and learns so from the return value.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, literal, null, select, update
from sqlalchemy.orm import Session

from app.db import News, announce, note_announced
from app.models import OutboxStream
from app.outbox.messages import Answer, Kind, Message
from app.outbox.statements import BEGIN_MESSAGE, BEGIN_STREAM, Statements, new_stream


@dataclass(frozen=True, slots=True)
class Claim:
    """A message leased to this dispatcher, with what fences its outcome and what its backoff is computed from."""

    message: Message
    epoch: int
    attempts: int
    refusals: int

    @property
    def fence(self) -> ColumnElement[bool]:
        """True of the stream's row as long as this claim is the one that may write its outcome."""
        return (
            (OutboxStream.media_id == self.message.media_id)
            & (OutboxStream.lease_epoch == self.epoch)
            & (OutboxStream.acked_seq == self.message.seq - 1)
            # Gone once an outcome is recorded: after a commit of unknown fate a second try to record counts nothing.
            & OutboxStream.lease_owner.is_not(None)
        )

    @property
    def as_row(self) -> dict[str, Any]:
        """What `fence` compares, for a statement about many claims."""
        return {"media_id": self.message.media_id, "lease_epoch": self.epoch, "seq": self.message.seq}


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be added, as its sender knows it."""

    media_id: str
    kind: Kind
    payload: dict[str, Any]
    user_id: str
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a claimed message as it went: `at` is seconds since 1970, `duration` seconds."""

    claim: Claim
    answer: Answer
    at: float
    duration: float


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What an acknowledgement changed: `recorded` where the lease still held, `going_on` where it goes on.

    `latencies` are the seconds from each message's commit to this one.
    """

    recorded: list[Try]
    going_on: list[Claim]
    latencies: list[float]


class OutboxQueue:
    """The queue's statements. `now` is the database's clock as an SQL expression."""

    def __init__(self, now: ColumnElement[float]) -> None:
        self.now = now
        self._by_dialect: dict[str, Statements] = {}

    def enqueue(
        self,
        connection: Connection,
        media_id: str,
        kind: Kind,
        payload: dict[str, Any],
        *,
        user_id: str,
        request_id: str | None,
    ) -> int:
        """Add a message behind all others of its media, in the caller's transaction; returns its sequence number."""
        statements = self._statements(connection)
        media = {"media": media_id}
        message = _known_at_once(NewMessage(media_id, kind, payload, user_id, request_id))
        if statements.dialect == "postgresql":
            note_announced(connection, News.MESSAGES)
            return int(connection.execute(statements.enqueue, media | message).scalar_one())
        seq = connection.execute(statements.advance, media).scalar_one()
        connection.execute(statements.add_message, message | {"seq": seq})
        announce(connection, News.MESSAGES)
        return seq

    def begin_with_media(self, connection: Connection, media: Mapping[str, Any], first: NewMessage, now: float) -> None:
        """As `begin_streams` for one media that is not there yet, whose row this is: for PostgreSQL alone.

        Raises IntegrityError where its id is taken.
        """
        values = {**media, **_known_at_once(first), "now": now}
        connection.execute(self._statements(connection).begin, values)
        note_announced(connection, News.MESSAGES)

    def begin_streams(self, connection: Connection, first: Sequence[NewMessage], now: float) -> None:
        """Add the first messages of media that have none yet, due from `now` on, in the caller's transaction."""
        BEGIN_STREAM.insert(connection, [new_stream(message.media_id, now) for message in first])
        rows = [{**_known_at_once(message), "seq": 1, "created_at": now} for message in first]
        BEGIN_MESSAGE.insert(connection, rows)
        announce(connection, News.MESSAGES)

    def next_due_in(self, session: Session, *, media_id: str | None = None) -> float | None:
        """Seconds until the first stream may be claimed (negative if overdue), None where nothing waits."""
        statements = self._statements(session.connection())
        due_in: float | None = (
            session.scalar(statements.next_due_in)
            if media_id is None
            else session.scalar(statements.media_due_in, {"media": media_id})
        )
        return due_in

    def claim(
        self, session: Session, owner: str, limit: int, lease: float, *, media_id: str | None = None
    ) -> list[Claim]:
        """Lease up to `limit` due streams for `lease` seconds, the longest due first; returns their head messages."""
        statements = self._statements(session.connection())
        wanted = {"owner": owner, "limit": limit, "lease": lease}
        if media_id is None:
            rows = session.execute(statements.claim_due, wanted).all()
        else:
            rows = session.execute(statements.claim_due_of_media, wanted | {"media": media_id}).all()
        if statements.dialect == "postgresql":
            return [_claim(row) for row in rows]
        return self._heads(session, [row.media_id for row in rows])

    def acknowledge(self, session: Session, tries: Sequence[Try], *, go_on: bool, lease: float) -> Acknowledged:
        """The messages arrived. With `go_on` a claim goes on, for `lease` seconds more, where another message waits."""
        if not tries:
            return Acknowledged([], [], [])
        statements = self._statements(session.connection())
        messages = {tried.claim.message.media_id: tried for tried in tries}
        rows = session.execute(
            statements.acknowledge,
            {
                "media": list(messages),
                "rows": [tried.claim.as_row for tried in messages.values()],
                "go_on": go_on,
                "lease": lease,
            },
        ).all()
        recorded = [messages[row.media_id] for row in rows]
        latencies: list[float] = []
        for outcome in {tried.answer.outcome for tried in recorded}:
            ended = [tried.claim.message for tried in recorded if tried.answer.outcome is outcome]
            rows_ended = [{"media_id": message.media_id, "seq": message.seq} for message in ended]
            parameters = {"outcome": outcome, "media": [message.media_id for message in ended], "rows": rows_ended}
            latencies += session.scalars(statements.end_messages, parameters)
        going_on = [messages[row.media_id].claim for row in rows if go_on and row.last_seq > row.acked_seq]
        return Acknowledged(recorded, going_on, latencies)

    def resume(self, session: Session, tries: Sequence[Try], *, go_on: bool, lease: float) -> list[Claim]:
        """Claims that an acknowledgement of these tries has moved on although its commit seemed to fail.

        With `go_on` they go on, for `lease` seconds more; otherwise they are let go. Nobody else has had them since:
        their epoch is the same.
        """
        claims = {tried.claim.message.media_id: tried.claim for tried in tries}
        rows = [claim.as_row for claim in claims.values()]
        parameters = {"media": list(claims), "rows": rows, "go_on": go_on, "lease": lease}
        return [claims[media] for media in session.scalars(self._statements(session.connection()).resume, parameters)]

    def continue_with(self, session: Session, claims: Iterable[Claim]) -> list[Claim]:
        """The next messages of claims whose acknowledgement said that they go on."""
        return self._heads(session, [claim.message.media_id for claim in claims])

    def postpone(self, session: Session, tried: Try, *, delay: float, counted: bool, refused: bool = False) -> bool:
        """Try again in `delay` seconds; False if the lease was lost."""
        return self._settle(
            session,
            tried,
            due_at=self.now + delay,
            attempts=OutboxStream.attempts + (1 if counted else 0),
            refusals=OutboxStream.refusals + (1 if refused else 0),
            uncertain=OutboxStream.uncertain | literal(tried.answer.uncertain),
        )

    def park(self, session: Session, tried: Try) -> bool:
        """Take the media out of the queue until a person decides; False if the lease was lost."""
        return self._settle(session, tried, due_at=null(), parked_at=self.now, park_reason=tried.answer.detail)

    def holds(self, session: Session, claim: Claim) -> bool:
        """Is the claim's lease still its own, and not run out?"""
        held = select(OutboxStream.media_id).where(claim.fence, OutboxStream.due_at > self.now)
        return session.scalar(held) is not None

    def release(self, session: Session, claim: Claim) -> bool:
        """Give back a claim that was not tried; False if the lease was lost."""
        result = session.execute(
            update(OutboxStream)
            .where(claim.fence)
            .values(due_at=self.now, lease_owner=null())
            .returning(OutboxStream.media_id)
            .execution_options(synchronize_session=False)
        )
        announce(session.connection(), News.MESSAGES)
        return result.first() is not None

    def note_attempts(self, session: Session, tries: Sequence[Try]) -> None:
        """Keep what was tried, for the person who asks."""
        if not tries:
            return
        rows = [
            {
                "media_id": tried.claim.message.media_id,
                "seq": tried.claim.message.seq,
                "at": tried.at,
                "duration": tried.duration,
                "verdict": tried.answer.verdict,
                "status": tried.answer.status,
                "detail": tried.answer.detail,
                "excerpt": tried.answer.excerpt,
            }
            for tried in tries
        ]
        session.execute(self._statements(session.connection()).add_attempts, {"rows": rows})

    def _settle(self, session: Session, tried: Try, **values: Any) -> bool:
        result = session.execute(
            update(OutboxStream)
            .where(tried.claim.fence)
            .values(lease_owner=null(), last_status=tried.answer.status, last_error=tried.answer.detail, **values)
            .returning(OutboxStream.media_id)
            .execution_options(synchronize_session=False)
        )
        return result.first() is not None

    def _heads(self, session: Session, media_ids: Sequence[str]) -> list[Claim]:
        if not media_ids:
            return []
        heads = self._statements(session.connection()).heads
        return [_claim(row) for row in session.execute(heads, {"media": media_ids})]

    def _statements(self, connection: Connection) -> Statements:
        dialect = connection.dialect.name
        if dialect not in self._by_dialect:
            self._by_dialect[dialect] = Statements(dialect, self.now)
        return self._by_dialect[dialect]


def _claim(row: Row[Any]) -> Claim:
    message = Message(
        media_id=row.media_id,
        seq=row.seq,
        kind=Kind(row.kind),
        payload=row.payload,
        idempotency_key=row.idempotency_key,
        user_id=row.user_id,
        request_id=row.request_id,
        uncertain=row.uncertain,
        epoch=row.epoch,
        changed_at=row.changed_at,
    )
    return Claim(message, row.lease_epoch, row.attempts, row.refusals)


def _known_at_once(message: NewMessage) -> dict[str, Any]:
    return {
        "media_id": message.media_id,
        "kind": message.kind,
        "payload": message.payload,
        "idempotency_key": str(uuid.uuid4()),
        "user_id": message.user_id,
        "request_id": message.request_id,
    }
