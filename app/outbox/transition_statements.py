"""The statements that apply transitions, and those that read what a decision depends on; each is built once."""

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
    """Statements about claimed streams."""

    @cached_property
    def deliver(self) -> Executable:
        """Move claimed streams on to their next messages; return media_id, acked_seq and last_seq.

        Also returns a stream that an earlier transaction moved on whose commit was reported as failed. Parameters:
        rows, a list of {media_id, lease_epoch, seq, continues}, where `continues` keeps the lease for the next message;
        lease.
        """
        given = self.rows(_S.media_id, _S.lease_epoch, _M.seq, Column("continues", Boolean())).subquery("given")
        more = _S.last_seq > given.c.seq
        keeps_lease = and_(more, given.c.continues)
        return (
            update(STREAM)
            .where(
                self.matches(_S.media_id, given.c.media_id),
                STREAM_LEASE.fence(given.c.lease_epoch),
                _S.acked_seq.in_((given.c.seq - ONE, given.c.seq)),
            )
            .values(
                acked_seq=given.c.seq,
                due_at=case((keeps_lease, STREAM_LEASE.end(self.now)), (more, self.now)),
                lease_owner=case((keeps_lease, _S.lease_owner)),
                waiting_since=case((more, self.now)),
                attempts=ZERO,
                failures=ZERO,
                counted_attempts=ZERO,
                refused_since=null(),
                outcome_unknown=false(),
                last_status=null(),
                last_error=null(),
            )
            .returning(_S.media_id, _S.acked_seq, _S.last_seq)
        )

    @cached_property
    def end_messages(self) -> Executable:
        """Mark waiting messages as delivered; return media_id and `latency`, the seconds since each was created.

        Parameter: rows, a list of {media_id, seq, outcome}.
        """
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
        """Release claimed streams, due again in `delay` seconds, or parked if `parked`; return their media ids.

        `sent` is 1 if the message was sent, else 0. Parameter: rows, a list of {media_id, lease_epoch, seq, sent,
        delay, parked, failures, counted_attempts, refused, outcome_unknown, last_status, last_error}.
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
            _S.outcome_unknown,
            _S.last_status,
            _S.last_error,
        ).subquery("given")
        row, was_sent = given.c, given.c.sent == ONE
        return (
            update(STREAM)
            .where(
                self.matches(_S.media_id, row.media_id),
                # An applied transition releases the lease, so after a commit of unknown outcome it cannot apply twice.
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
                outcome_unknown=or_(_S.outcome_unknown, row.outcome_unknown),
                parked_at=case((row.parked, self.now)),
                park_reason=case((row.parked, row.last_error)),
                last_status=case((was_sent, row.last_status), else_=_S.last_status),
                last_error=case((was_sent, row.last_error), else_=_S.last_error),
            )
            .returning(_S.media_id)
        )

    @cached_property
    def leased(self) -> Executable:
        """Lock and select the media ids of streams whose leases still hold.

        Parameters: media, a list; rows, a list of {media_id, lease_epoch, seq}.
        """
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
        """Select when a message was last delivered."""
        delivered = select(_M.delivered_at).where(_M.delivered_at.is_not(None), _M.outcome != Outcome.SKIPPED)
        return delivered.order_by(_M.delivered_at.desc()).limit(1)

    @cached_property
    def reference(self) -> Executable:
        """Select the media item whose message was accepted last, except `media`, with its user. Parameter: media."""
        accepted = select(_M.media_id, _M.user_id).where(
            _M.delivered_at.is_not(None), _M.outcome == Outcome.ACCEPTED, _M.media_id != bindparam("media")
        )
        return accepted.order_by(_M.delivered_at.desc()).limit(1)

    @cached_property
    def add_attempts(self) -> Executable:
        """Insert attempts. Parameter: rows, a list of the columns except id."""
        columns = [column for column in ATTEMPT.c if not column.primary_key]
        return insert(ATTEMPT).from_select([column.name for column in columns], self.rows(*columns))
