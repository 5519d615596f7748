"""The statements that enqueue and claim, built once: building one costs SQLAlchemy more than running it costs SQLite.

The statements take their values as parameters.
"""

from functools import cached_property
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Double,
    Executable,
    FromClause,
    Integer,
    Select,
    Table,
    and_,
    bindparam,
    case,
    false,
    func,
    insert,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from app.database.lease import Lease
from app.database.models import DatabaseInstance, Media, OutboxAttempt, OutboxHold, OutboxMessage, OutboxStream
from app.outbox.list_statements import ListStatements

MEDIA: Table = Media.__table__  # type: ignore[assignment]
STREAM: Table = OutboxStream.__table__  # type: ignore[assignment]
MESSAGE: Table = OutboxMessage.__table__  # type: ignore[assignment]
ATTEMPT: Table = OutboxAttempt.__table__  # type: ignore[assignment]
HOLD: Table = OutboxHold.__table__  # type: ignore[assignment]
_S, _M, _H = STREAM.c, MESSAGE.c, HOLD.c
_HEAD = (
    _S.media_id,
    _S.acked_seq,
    _S.outcome_unknown,
    _S.lease_epoch,
    _S.attempts,
    _S.failures,
    _S.counted_attempts,
    _S.refused_since,
)
STREAM_LEASE = Lease(owner=_S.lease_owner, epoch=_S.lease_epoch, until=_S.due_at)
ZERO, ONE = literal_column("0", Integer()), literal_column("1", Integer())  # plain numbers would become parameters
_EPOCH = select(DatabaseInstance.epoch).scalar_subquery()  # NULL before the first start
USERS_AT_ONCE = 8
"""Users whose streams are claimed in one turn while any user is held; the next turn claims those of the next users."""

_GIVEN_COLUMNS = ("media_id", "kind", "payload", "idempotency_key", "user_id", "request_id")


def new_stream(
    media_id: Any, user_id: Any, now: Any, *, none: Any = 0, one: Any = 1, no: Any = False
) -> dict[str, Any]:
    """Return the column values, or SQL expressions, of a stream with one message that is due at `now`."""
    return {
        "media_id": media_id,
        "user_id": user_id,
        "last_seq": one,
        "acked_seq": none,
        "due_at": now,
        "lease_epoch": none,
        "attempts": none,
        "failures": none,
        "counted_attempts": none,
        "outcome_unknown": no,
        "waiting_since": now,
    }


BEGIN_STREAM, BEGIN_MESSAGE = insert(STREAM), insert(MESSAGE)
"""Insert rows with all columns given."""


class Statements(ListStatements):
    """Statements that enqueue and claim."""

    @cached_property
    def advance(self) -> ReturningInsert[int]:
        """Increment a stream's `last_seq`, or insert the stream; return `last_seq`. Parameters: media, user_id."""
        dialect = postgresql if self.dialect == "postgresql" else sqlite
        user: ColumnElement[str] = bindparam("user_id", type_=_S.user_id.type)
        beginning = new_stream(bindparam("media"), user, self.now, none=ZERO, one=ONE, no=false())
        new: Any = dialect.insert(STREAM).values(beginning)
        advanced: ReturningInsert[int] = new.on_conflict_do_update(
            index_elements=[_S.media_id],
            set_={
                "last_seq": _S.last_seq + ONE,
                # A backoff or a lease keeps its time, and a parked stream stays out of the index.
                "due_at": case((_S.parked_at.is_(None), func.coalesce(_S.due_at, self.now))),
                "waiting_since": func.coalesce(_S.waiting_since, self.now),
            },
        ).returning(_S.last_seq)
        return advanced

    @cached_property
    def add_message(self) -> Executable:
        """Insert a message created now. Parameters: seq and _GIVEN_COLUMNS."""
        return insert(MESSAGE).values({"seq": bindparam("seq"), **_given_columns(), "created_at": self.now})

    @cached_property
    def enqueue(self) -> Executable:
        """`advance` and `add_message` in one statement; for PostgreSQL only, because SQLite cannot insert in a WITH.

        Returns the sequence number. Parameters: media and _GIVEN_COLUMNS.
        """
        stream = self.advance.cte("stream")
        values = {"seq": stream.c.last_seq, **_given_columns(), "created_at": self.now}
        rows = select(*values.values()).select_from(stream)
        message = insert(MESSAGE).from_select(list(values), rows).returning(_M.seq).cte("message")
        return select(message.c.seq)

    @cached_property
    def begin(self) -> Executable:
        """Insert a media row, its stream and its first message; for PostgreSQL only, as `enqueue`.

        Parameters: the media columns except id, _GIVEN_COLUMNS, now.
        """
        named = {column.name: bindparam(column.name, type_=column.type) for column in MEDIA.c}
        media = insert(MEDIA).values(named | {"id": bindparam("media_id")}).returning(MEDIA.c.id).cte("media")
        now: ColumnElement[float] = bindparam("now", type_=Double())
        user: ColumnElement[str] = bindparam("user_id", type_=_S.user_id.type)
        stream_row = new_stream(media.c.id, user, now, none=ZERO, one=ONE, no=false())
        stream = insert(STREAM).from_select(list(stream_row), select(*stream_row.values())).returning(_S.media_id)
        begun = stream.cte("stream")
        message_row = _given_columns() | {"media_id": begun.c.media_id, "seq": ONE, "created_at": now}
        message = insert(MESSAGE).from_select(list(message_row), select(*message_row.values())).returning(_M.seq)
        return select(message.cte("message").c.seq)

    @cached_property
    def next_due_in(self) -> Executable:
        """Select the seconds until the first stream is due. Parameter: since."""
        return select(func.min(_S.due_at) - self.now).where(_S.due_at >= _since())

    @cached_property
    def media_due_in(self) -> Executable:
        """Select the seconds until one stream is due. Parameter: media."""
        return select(_S.due_at - self.now).where(_S.media_id == bindparam("media"))

    @cached_property
    def claim_due(self) -> Executable:
        """Lease the streams that are due for longest. Parameters: owner, lease, limit, since.

        Returns their media ids, for `heads`. PostgreSQL can update in a WITH and returns the rows of `heads` directly.
        """
        return self._lease(self._due(_S.due_at >= _since()).cte("due"))

    @cached_property
    def claim_due_of_media(self) -> Executable:
        """Lease the stream of one media item if it is due. Parameters: owner, lease, limit, media."""
        return self._lease(self._due(_S.media_id == bindparam("media")).cte("due"))

    @cached_property
    def claim_due_of_users(self) -> Executable:
        """Lease up to `limit` due streams of each of USERS_AT_ONCE users.

        Parameters: owner, lease, limit, since, user_0, user_1 and so on; unused ones are None.
        """
        of_users = []
        for position in range(USERS_AT_ONCE):
            user: ColumnElement[str] = bindparam(f"user_{position}", type_=_S.user_id.type)
            due = self._due(and_(_S.user_id == user, _S.due_at >= _since()))
            one = due.subquery()
            of_users.append(select(one.c.media_id, one.c.due_at))
        return self._lease(union_all(*of_users).cte("due"))

    @cached_property
    def users_waiting(self) -> Executable:
        """Select up to `limit` users above `after`, by id, who have a due stream and are not held at `endpoint`.

        A recursive query steps from one user to the next in the index, so its cost depends on the number of users and
        not on the number of streams. Parameters: endpoint, after, limit, since.
        """
        first = select(_S.user_id).where(_S.due_at.is_not(None)).order_by(_S.user_id).limit(1)
        users = select(first.where(_S.user_id > bindparam("after")).scalar_subquery().label("user_id")).cte(
            "users", recursive=True
        )
        following = first.where(_S.user_id > users.c.user_id).correlate(users).scalar_subquery()
        users = users.union_all(select(following).where(users.c.user_id.is_not(None)))
        first_due = select(_S.due_at).where(_S.user_id == users.c.user_id, _S.due_at >= _since())
        due = first_due.order_by(_S.due_at).limit(1).correlate(users).scalar_subquery() <= self.now
        held = select(_H.user_id).where(_H.endpoint == bindparam("endpoint"), _H.user_id == users.c.user_id)
        return (
            select(users.c.user_id)
            .where(users.c.user_id.is_not(None), due, ~held.correlate(users).exists())
            .limit(bindparam("limit"))
        )

    def _due(self, chosen: ColumnElement[bool]) -> Select[str, float]:
        return (
            select(_S.media_id, _S.due_at)
            .where(_S.due_at <= self.now, chosen)
            .order_by(_S.due_at)
            .limit(bindparam("limit"))
            .with_for_update(skip_locked=True)
        )

    def _lease(self, due: CTE) -> Executable:
        lease = (
            update(STREAM)
            .where(_S.media_id.in_(select(due.c.media_id)))
            .values(
                **STREAM_LEASE.claim(self.now),
                # An owner that is still set died or froze, so the outcome of its request is unknown.
                outcome_unknown=or_(_S.outcome_unknown, _S.lease_owner.is_not(None)),
            )
        )
        if self.dialect == "postgresql":
            leased = lease.returning(*_HEAD).cte("leased")
            return _heads_of(leased).join(due, due.c.media_id == leased.c.media_id).order_by(due.c.due_at)
        return lease.returning(_S.media_id)

    @cached_property
    def heads(self) -> Executable:
        """Select the head messages of streams. Parameter: media, a list."""
        return _heads_of(STREAM).where(self.among(_S.media_id))


def _since() -> ColumnElement[float]:
    """Return the parameter `since`, the due time at which the index is read from; see `Claiming._set_scan_start`."""
    return bindparam("since", type_=Double())


def _given_columns() -> dict[str, ColumnElement[Any]]:
    """Return _GIVEN_COLUMNS as parameters of the same names."""
    return {name: bindparam(name, type_=_M[name].type) for name in _GIVEN_COLUMNS}


def _heads_of(streams: FromClause) -> Select[*tuple[Any, ...]]:
    """Select the head messages of these streams with the columns of a Claim."""
    stream = streams.c
    return select(
        _M.media_id,
        _M.seq,
        _M.kind,
        _M.payload,
        _M.idempotency_key,
        _M.user_id,
        _M.request_id,
        stream.outcome_unknown,
        stream.lease_epoch,
        stream.attempts,
        stream.failures,
        stream.counted_attempts,
        stream.refused_since,
        func.coalesce(_M.changed_at, _M.created_at).label("changed_at"),
        func.coalesce(_EPOCH, ONE).label("epoch"),
    ).join_from(streams, MESSAGE, and_(stream.media_id == _M.media_id, _M.seq == stream.acked_seq + ONE))
