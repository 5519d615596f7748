"""The statements that apply transitions, and what is asked before they are decided on: built once, as
`app.outbox.statements`."""

from functools import cached_property

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    Executable,
    Integer,
    and_,
    bindparam,
    case,
    false,
    insert,
    null,
    or_,
    select,
    tuple_,
    update,
)

from app.outbox.list_statements import ListStatements
from app.outbox.messages import Outcome
from app.outbox.statements import ATTEMPT, MESSAGE, ONE, STREAM, STREAM_LEASE, ZERO

_S, _M = STREAM.c, MESSAGE.c


class TransitionStatements(ListStatements):
    """What comes of claimed streams."""

    @cached_property
    def deliver(self) -> Executable:
        """Moves claimed streams on to their next messages and returns media, `acked_seq` and `last_seq`.

        A stream that it had moved on before, in a transaction nobody heard the end of, is returned as well, its lease
        still held. Parameters: rows, a list of {media_id, lease_epoch, seq, goes_on}, `goes_on` saying that the claim
        keeps its lease for the message behind; lease.
        """
        given = self.rows(_S.media_id, _S.lease_epoch, _M.seq, Column("goes_on", Boolean())).subquery("given")
        more = _S.last_seq > given.c.seq
        kept = and_(more, given.c.goes_on)
        return (
            update(STREAM)
            .where(
                self.matches(_S.media_id, given.c.media_id),
                STREAM_LEASE.fence(given.c.lease_epoch),
                _S.acked_seq.in_((given.c.seq - ONE, given.c.seq)),
            )
            .values(
                acked_seq=given.c.seq,
                due_at=case((kept, STREAM_LEASE.end(self.now)), (more, self.now)),
                lease_owner=case((kept, _S.lease_owner)),
                head_since=case((more, self.now)),
                attempts=ZERO,
                failures=ZERO,
                counted_attempts=ZERO,
                refused_since=null(),
                uncertain=false(),
                last_status=null(),
                last_error=null(),
            )
            .returning(_S.media_id, _S.acked_seq, _S.last_seq)
        )

    @cached_property
    def end_messages(self) -> Executable:
        """Marks messages as no longer waiting; returns media and `latency`, the seconds from their commit to now, of
        those that were. Parameter: rows, a list of {media_id, seq, outcome}."""
        given = self.rows(_M.media_id, _M.seq, _M.outcome).subquery("given")
        return (
            update(MESSAGE)
            .where(
                self.matches(_M.media_id, given.c.media_id),
                _M.seq == given.c.seq,
                _M.delivered_at.is_(None),
            )
            .values(delivered_at=self.now, outcome=given.c.outcome)
            .returning(_M.media_id, (_M.delivered_at - _M.created_at).label("latency"))
        )

    @cached_property
    def reschedule(self) -> Executable:
        """Lets go of claimed streams: due again in `delay` seconds, or parked where `parked`; returns their media.

        `sent` is 1 where the message was sent. Parameter: rows, a list of {media_id, lease_epoch, seq, sent, delay,
        parked, failures, counted_attempts, refused, uncertain, last_status, last_error}.
        """
        given = self.rows(
            _S.media_id,
            _S.lease_epoch,
            _M.seq,
            Column("sent", Integer()),
            Column("delay", Double()),
            Column("parked", Boolean()),
            _S.failures,
            _S.counted_attempts,
            Column("refused", Boolean()),
            _S.uncertain,
            _S.last_status,
            _S.last_error,
        ).subquery("given")
        row, was_sent = given.c, given.c.sent == ONE
        return (
            update(STREAM)
            .where(
                self.matches(_S.media_id, row.media_id),
                # Released once a transition is applied: after a commit of unknown outcome it is not applied twice.
                STREAM_LEASE.fence(row.lease_epoch),
                _S.acked_seq == row.seq - ONE,
            )
            .values(
                due_at=case((row.parked, null()), else_=self.now + row.delay),
                lease_owner=null(),
                attempts=_S.attempts + row.sent,
                failures=row.failures,
                counted_attempts=row.counted_attempts,
                refused_since=case(
                    (and_(row.refused, or_(_S.refused_since.is_(None), _S.refused_since > self.now)), self.now),
                    else_=_S.refused_since,
                ),
                uncertain=or_(_S.uncertain, row.uncertain),
                parked_at=case((row.parked, self.now)),
                park_reason=case((row.parked, row.last_error)),
                last_status=case((was_sent, row.last_status), else_=_S.last_status),
                last_error=case((was_sent, row.last_error), else_=_S.last_error),
            )
            .returning(_S.media_id)
        )

    @cached_property
    def leased(self) -> Executable:
        """The media whose claims are still theirs, and will be until the transaction ends. Parameters: media, a list;
        rows, a list of {media_id, lease_epoch, seq}."""
        claims = self.rows(_S.media_id, _S.lease_epoch, _M.seq)
        return (
            select(_S.media_id)
            .where(
                self.among(_S.media_id),
                tuple_(_S.media_id, _S.lease_epoch, _S.acked_seq + ONE).in_(claims),
                STREAM_LEASE.runs(self.now),
            )
            .with_for_update()
        )

    @cached_property
    def last_delivery(self) -> Executable:
        """When a message was last delivered."""
        delivered = select(_M.delivered_at).where(_M.delivered_at.is_not(None), _M.outcome != Outcome.SKIPPED)
        return delivered.order_by(_M.delivered_at.desc()).limit(1)

    @cached_property
    def reference(self) -> Executable:
        """The media item, but one, whose message was accepted last, and its user. Parameter: media."""
        accepted = select(_M.media_id, _M.user_id).where(
            _M.delivered_at.is_not(None), _M.outcome == Outcome.ACCEPTED, _M.media_id != bindparam("media")
        )
        return accepted.order_by(_M.delivered_at.desc()).limit(1)

    @cached_property
    def add_attempts(self) -> Executable:
        """Inserts attempts. Parameter: rows, a list of every column's value but the id."""
        columns = [column for column in ATTEMPT.c if not column.primary_key]
        return insert(ATTEMPT).from_select([column.name for column in columns], self.rows(*columns))
