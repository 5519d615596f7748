"""The outbox's SQL on the hot path: enqueue, claim, and the outcome of a try.

Nothing here begins or commits a transaction. A stream's row is the lock of its media: `enqueue` counts `last_seq` up
under it, so sequence order is commit order. Every outcome is fenced by the lease's epoch and by the sequence number:
a dispatcher that lost its lease changes nothing, and learns so from the return value.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, insert, literal, null, select, true, update
from sqlalchemy.orm import Session

from app.db import announce, upsert
from app.models import OutboxAttempt, OutboxMessage, OutboxStream
from app.outbox.messages import Answer, Kind, Message, Outcome


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
            & OutboxStream.parked_at.is_(None)
        )


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a claimed message as it went: `at` is seconds since 1970, `duration` seconds."""

    claim: Claim
    answer: Answer
    at: float
    duration: float


class OutboxQueue:
    """The queue's statements. `now` is the database's clock as an SQL expression."""

    def __init__(self, now: ColumnElement[float]) -> None:
        self._now = now

    def enqueue(
        self,
        session: Session,
        media_id: str,
        kind: Kind,
        payload: dict[str, Any],
        *,
        user_id: str,
        request_id: str | None,
    ) -> int:
        """Add a message behind all others of its media, in the caller's transaction; returns its sequence number."""
        seq = session.scalar(self._advanced(session, media_id))
        session.execute(
            insert(OutboxMessage).values(
                media_id=media_id,
                seq=seq,
                kind=kind,
                payload=payload,
                idempotency_key=str(uuid.uuid4()),
                user_id=user_id,
                request_id=request_id,
                created_at=self._now,
            )
        )
        announce(session)
        return int(seq)

    def _advanced(self, session: Session, media_id: str) -> Any:
        new = upsert(session, OutboxStream).values(
            media_id=media_id,
            last_seq=1,
            acked_seq=0,
            due_at=self._now,
            lease_epoch=0,
            attempts=0,
            refusals=0,
            uncertain=False,
            head_since=self._now,
        )
        return new.on_conflict_do_update(
            index_elements=[OutboxStream.media_id],
            set_={
                "last_seq": OutboxStream.last_seq + 1,
                # A backoff or a lease under way keeps its time; a parked stream stays out of the index.
                "due_at": case((OutboxStream.parked_at.is_(None), func.coalesce(OutboxStream.due_at, self._now))),
                "head_since": func.coalesce(OutboxStream.head_since, self._now),
            },
        ).returning(OutboxStream.last_seq)

    def next_due_in(self, session: Session) -> float | None:
        """Seconds until the first stream may be claimed (negative if overdue), None where nothing waits."""
        return session.scalar(select(func.min(OutboxStream.due_at) - self._now).where(OutboxStream.due_at.is_not(None)))

    def claim(
        self, session: Session, owner: str, limit: int, lease: float, *, media_id: str | None = None
    ) -> list[Claim]:
        """Lease up to `limit` due streams for `lease` seconds, the longest due first; returns their head messages."""
        due = (
            select(OutboxStream.media_id)
            .where(OutboxStream.due_at <= self._now)
            .where(OutboxStream.media_id == media_id if media_id else true())
            .order_by(OutboxStream.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        leased = session.scalars(
            update(OutboxStream)
            .where(OutboxStream.media_id.in_(select(due.c.media_id)))
            .values(
                due_at=self._now + lease,
                lease_epoch=OutboxStream.lease_epoch + 1,
                # An owner still there is one that died or froze: nobody knows how far its send came.
                uncertain=OutboxStream.uncertain | OutboxStream.lease_owner.is_not(None),
                lease_owner=owner,
            )
            .returning(OutboxStream.media_id)
            .execution_options(synchronize_session=False)
        ).all()
        return self._heads(session, leased)

    def acknowledge(self, session: Session, tried: Try, *, go_on: bool, lease: float) -> bool | None:
        """The message arrived. True: the claim goes on with the next one, under a renewed lease; False: nothing is
        left, or `go_on` is false; None: the lease was lost, and nothing changed."""
        claim, seq = tried.claim, tried.claim.message.seq
        more = OutboxStream.last_seq > seq
        kept = more if go_on else literal(False)
        row = session.execute(
            update(OutboxStream)
            .where(claim.fence)
            .values(
                acked_seq=seq,
                due_at=case((kept, self._now + lease), (more, self._now)),
                lease_owner=case((kept, OutboxStream.lease_owner)),
                head_since=case((more, self._now)),
                attempts=0,
                refusals=0,
                uncertain=False,
                last_status=tried.answer.status,
                last_error=null(),
            )
            .returning(OutboxStream.last_seq)
            .execution_options(synchronize_session=False)
        ).first()
        if row is None:
            return None
        self._end_message(session, claim.message.media_id, seq, tried.answer.outcome)
        return go_on and row.last_seq > seq

    def continue_with(self, session: Session, claims: Iterable[Claim]) -> list[Claim]:
        """The next messages of claims whose acknowledgement said that they go on."""
        return self._heads(session, [claim.message.media_id for claim in claims])

    def postpone(self, session: Session, tried: Try, *, delay: float, counted: bool, refused: bool = False) -> bool:
        """Try again in `delay` seconds; False if the lease was lost."""
        return self._settle(
            session,
            tried,
            due_at=self._now + delay,
            attempts=OutboxStream.attempts + (1 if counted else 0),
            refusals=OutboxStream.refusals + (1 if refused else 0),
            uncertain=OutboxStream.uncertain | literal(tried.answer.uncertain),
        )

    def park(self, session: Session, tried: Try) -> bool:
        """Take the media out of the queue until a person decides; False if the lease was lost."""
        return self._settle(session, tried, due_at=null(), parked_at=self._now, park_reason=tried.answer.detail)

    def release(self, session: Session, claim: Claim) -> bool:
        """Give back a claim that was not tried; False if the lease was lost."""
        result = session.execute(
            update(OutboxStream)
            .where(claim.fence)
            .values(due_at=self._now, lease_owner=null())
            .returning(OutboxStream.media_id)
            .execution_options(synchronize_session=False)
        )
        return result.first() is not None

    def note_attempts(self, session: Session, tries: Sequence[Try]) -> None:
        """Keep what was tried, for the person who asks."""
        if not tries:
            return
        session.execute(
            insert(OutboxAttempt),
            [
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
            ],
        )

    def _settle(self, session: Session, tried: Try, **values: Any) -> bool:
        result = session.execute(
            update(OutboxStream)
            .where(tried.claim.fence)
            .values(lease_owner=null(), last_status=tried.answer.status, last_error=tried.answer.detail, **values)
            .returning(OutboxStream.media_id)
            .execution_options(synchronize_session=False)
        )
        return result.first() is not None

    def _end_message(self, session: Session, media_id: str, seq: int, outcome: Outcome) -> None:
        session.execute(
            update(OutboxMessage)
            .where(OutboxMessage.media_id == media_id, OutboxMessage.seq == seq)
            .values(delivered_at=self._now, outcome=outcome)
            .execution_options(synchronize_session=False)
        )

    def _heads(self, session: Session, media_ids: Sequence[str]) -> list[Claim]:
        if not media_ids:
            return []
        return [_claim(*row) for row in session.execute(_head_of(media_ids))]


def _head_of(media_ids: Sequence[str]) -> Select[OutboxMessage, int, int, int, bool]:
    stream = OutboxStream
    return (
        select(OutboxMessage, stream.lease_epoch, stream.attempts, stream.refusals, stream.uncertain)
        .join(
            stream,
            (stream.media_id == OutboxMessage.media_id) & (OutboxMessage.seq == stream.acked_seq + 1),
        )
        .where(stream.media_id.in_(media_ids))
    )


def _claim(row: OutboxMessage, epoch: int, attempts: int, refusals: int, uncertain: bool) -> Claim:
    message = Message(
        media_id=row.media_id,
        seq=row.seq,
        kind=Kind(row.kind),
        payload=row.payload,
        idempotency_key=row.idempotency_key,
        user_id=row.user_id,
        request_id=row.request_id,
        uncertain=uncertain,
    )
    return Claim(message, epoch, attempts, refusals)
