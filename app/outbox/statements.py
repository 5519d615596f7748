"""The hot path's statements, built once: SQLAlchemy spends more on building and keying one than SQLite on running it.

Each takes its values as parameters. `Statements` is made for one dialect and one clock, and holds no state.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    Column,
    ColumnElement,
    Double,
    Executable,
    FromClause,
    Integer,
    Select,
    String,
    Table,
    and_,
    any_,
    bindparam,
    case,
    false,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from app.db import NOTIFICATION
from app.direct import Direct
from app.models import DatabaseInstance, Media, OutboxAttempt, OutboxMessage, OutboxStream

MEDIA: Table = Media.__table__  # type: ignore[assignment]
STREAM: Table = OutboxStream.__table__  # type: ignore[assignment]
MESSAGE: Table = OutboxMessage.__table__  # type: ignore[assignment]
ATTEMPT: Table = OutboxAttempt.__table__  # type: ignore[assignment]
_S, _M = STREAM.c, MESSAGE.c
_HEAD = (_S.media_id, _S.acked_seq, _S.uncertain, _S.lease_epoch, _S.attempts, _S.refusals)
_ZERO, _ONE = literal_column("0", Integer()), literal_column("1", Integer())  # a number itself becomes a parameter
_EPOCH = select(DatabaseInstance.epoch).scalar_subquery()  # none before the first start
_KNOWN_AT_ONCE = ("media_id", "kind", "payload", "idempotency_key", "user_id", "request_id")


def new_stream(media_id: Any, now: Any, *, none: Any = 0, one: Any = 1, no: Any = False) -> dict[str, Any]:
    """A stream with one message, which is due from `now` on: values, or SQL expressions of them."""
    return {
        "media_id": media_id,
        "last_seq": one,
        "acked_seq": none,
        "due_at": now,
        "lease_epoch": none,
        "attempts": none,
        "refusals": none,
        "uncertain": no,
        "head_since": now,
    }


BEGIN_STREAM = Direct(insert(STREAM), new_stream(None, None))
BEGIN_MESSAGE = Direct(insert(MESSAGE), (*_KNOWN_AT_ONCE, "seq", "created_at"))
"""Add rows whose every column is given."""


@dataclass(frozen=True)
class Statements:
    """`now` is the database's clock as an SQL expression."""

    dialect: str
    now: ColumnElement[float]

    @cached_property
    def advance(self) -> ReturningInsert[int]:
        """Counts a media's `last_seq` up, or begins its stream, and returns it. Parameter: media."""
        dialect = postgresql if self.dialect == "postgresql" else sqlite
        beginning = new_stream(bindparam("media"), self.now, none=_ZERO, one=_ONE, no=false())
        new: Any = dialect.insert(STREAM).values(beginning)
        advanced: ReturningInsert[int] = new.on_conflict_do_update(
            index_elements=[_S.media_id],
            set_={
                "last_seq": _S.last_seq + _ONE,
                # A backoff or a lease under way keeps its time; a parked stream stays out of the index.
                "due_at": case((_S.parked_at.is_(None), func.coalesce(_S.due_at, self.now))),
                "head_since": func.coalesce(_S.head_since, self.now),
            },
        ).returning(_S.last_seq)
        return advanced

    @cached_property
    def add_message(self) -> Executable:
        """Inserts a message, created now. Parameters: seq, and its other columns that are known at once."""
        return insert(MESSAGE).values({"seq": bindparam("seq"), **_known_at_once(), "created_at": self.now})

    @cached_property
    def enqueue(self) -> Executable:
        """`advance`, `add_message` and the announcement in one, for PostgreSQL alone: SQLite's WITH cannot insert.

        Returns the message's number. Parameters: media, and the message's columns that are known at once.
        """
        stream = self.advance.cte("stream")
        values = {"seq": stream.c.last_seq, **_known_at_once(), "created_at": self.now}
        rows = select(*values.values()).select_from(stream)
        message = insert(MESSAGE).from_select(list(values), rows).returning(_M.seq).cte("message")
        return select(message.c.seq, NOTIFICATION)

    @cached_property
    def begin(self) -> Executable:
        """Inserts a media, its stream and its first message, announced, in one: for PostgreSQL alone, as `enqueue`.

        Parameters: the media's columns but its id, which is media_id; the message's that are known at once; now.
        """
        named = {column.name: bindparam(column.name, type_=column.type) for column in MEDIA.c}
        media = insert(MEDIA).values(named | {"id": bindparam("media_id")}).returning(MEDIA.c.id).cte("media")
        now: ColumnElement[float] = bindparam("now", type_=Double())
        stream_row = new_stream(media.c.id, now, none=_ZERO, one=_ONE, no=false())
        stream = insert(STREAM).from_select(list(stream_row), select(*stream_row.values())).returning(_S.media_id)
        begun = stream.cte("stream")
        message_row = _known_at_once() | {"media_id": begun.c.media_id, "seq": _ONE, "created_at": now}
        message = insert(MESSAGE).from_select(list(message_row), select(*message_row.values())).returning(_M.seq)
        return select(message.cte("message").c.seq, NOTIFICATION)

    @cached_property
    def next_due_in(self) -> Executable:
        """Seconds until the first stream is due."""
        return select(func.min(_S.due_at) - self.now).where(_S.due_at.is_not(None))

    @cached_property
    def media_due_in(self) -> Executable:
        """Seconds until one media's stream is due. Parameter: media."""
        return select(_S.due_at - self.now).where(_S.media_id == bindparam("media"))

    @cached_property
    def claim_due(self) -> Executable:
        """Leases the longest due streams. Parameters: owner, lease, limit.

        Returns their media, for `heads`; on PostgreSQL, whose WITH can update, already what `heads` would.
        """
        return self._claim(true())

    @cached_property
    def claim_due_of_media(self) -> Executable:
        """The same of one media alone. Parameters: owner, lease, limit, media."""
        return self._claim(_S.media_id == bindparam("media"))

    def _claim(self, chosen: ColumnElement[bool]) -> Executable:
        due = (
            select(_S.media_id)
            .where(_S.due_at <= self.now, chosen)
            .order_by(_S.due_at)
            .limit(bindparam("limit"))
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        lease = (
            update(STREAM)
            .where(_S.media_id.in_(select(due.c.media_id)))
            .values(
                due_at=self.now + bindparam("lease"),
                lease_epoch=_S.lease_epoch + _ONE,
                # An owner still there is one that died or froze: nobody knows how far its send came.
                uncertain=or_(_S.uncertain, _S.lease_owner.is_not(None)),
                lease_owner=bindparam("owner"),
            )
        )
        if self.dialect == "postgresql":
            return _heads_of(lease.returning(*_HEAD).cte("leased"))
        return lease.returning(_S.media_id)

    @cached_property
    def heads(self) -> Executable:
        """The head messages of streams, with what fences their outcomes. Parameter: media, a list."""
        return _heads_of(STREAM).where(self._among(_S.media_id))

    @cached_property
    def acknowledge(self) -> Executable:
        """Moves claimed streams on to their next messages and returns media, `acked_seq` and `last_seq`.

        Parameters: media, a list; rows, a list of {media_id, lease_epoch, seq}; go_on, whether the claims keep their
        leases for the messages behind; lease.
        """
        more = _S.last_seq > _S.acked_seq + 1
        fences = self._rows(_S.media_id, _S.lease_epoch, _M.seq)
        kept = and_(more, bindparam("go_on", type_=Boolean()))
        return (
            update(STREAM)
            .where(
                self._among(_S.media_id),
                tuple_(_S.media_id, _S.lease_epoch, _S.acked_seq + 1).in_(fences),
                _S.lease_owner.is_not(None),
            )
            .values(
                acked_seq=_S.acked_seq + _ONE,
                due_at=case((kept, self.now + bindparam("lease")), (more, self.now)),
                lease_owner=case((kept, _S.lease_owner)),
                head_since=case((more, self.now)),
                attempts=_ZERO,
                refusals=_ZERO,
                uncertain=false(),
                last_status=null(),
                last_error=null(),
            )
            .returning(_S.media_id, _S.acked_seq, _S.last_seq)
        )

    @cached_property
    def resume(self) -> Executable:
        """Takes up claims that an acknowledgement nobody heard of has moved on, and returns their media.

        Parameters: media, a list; rows, a list of {media_id, lease_epoch, seq}, seq being what was acknowledged; go_on,
        whether they keep their leases, or else are let go; lease.
        """
        moved_on = self._rows(_S.media_id, _S.lease_epoch, _M.seq)
        kept = bindparam("go_on", type_=Boolean())
        return (
            update(STREAM)
            .where(
                self._among(_S.media_id),
                tuple_(_S.media_id, _S.lease_epoch, _S.acked_seq).in_(moved_on),
                _S.lease_owner.is_not(None),
            )
            .values(
                due_at=case((kept, self.now + bindparam("lease")), else_=self.now),
                lease_owner=case((kept, _S.lease_owner)),
            )
            .returning(_S.media_id)
        )

    @cached_property
    def end_messages(self) -> Executable:
        """Marks messages as delivered and returns how long each waited.

        Parameters: outcome; media, a list; rows, a list of {media_id, seq}.
        """
        return (
            update(MESSAGE)
            .where(
                self._among(_M.media_id),  # SQLite finds no index for pairs alone
                tuple_(_M.media_id, _M.seq).in_(self._rows(_M.media_id, _M.seq)),
            )
            .values(delivered_at=self.now, outcome=bindparam("outcome"))
            .returning((_M.delivered_at - _M.created_at).label("latency"))
        )

    @cached_property
    def add_attempts(self) -> Executable:
        """Inserts what was tried. Parameter: rows, a list of every column's value but the id."""
        columns = [column for column in ATTEMPT.c if not column.primary_key]
        return insert(ATTEMPT).from_select([column.name for column in columns], self._rows(*columns))

    def _among(self, column: ColumnElement[str]) -> ColumnElement[bool]:
        """Is it in the list `media`? One parameter however long the list, in a form that both search by index."""
        if self.dialect == "postgresql":
            return column == any_(bindparam("media", type_=ARRAY(String)))
        return column.in_(select(func.json_each(bindparam("media", type_=JSON())).table_valued("value").c.value))

    def _rows(self, *columns: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
        """The list `rows` as a table of these columns: one parameter too, because hundreds of them take their time."""
        given = bindparam("rows", type_=JSON())
        if self.dialect == "postgresql":
            typed = [Column(column.key, column.type) for column in columns]
            table = func.json_to_recordset(given).table_valued(*typed, name="given").render_derived(with_types=True)
            return select(*table.c)
        value = func.json_each(given).table_valued("value", name="given").c.value
        return select(*(func.json_extract(value, f"$.{column.key}") for column in columns))


def _known_at_once() -> dict[str, ColumnElement[Any]]:
    """The columns of a new message that its sender gives, as parameters of their names."""
    return {name: bindparam(name, type_=_M[name].type) for name in _KNOWN_AT_ONCE}


def _heads_of(streams: FromClause) -> Select[*tuple[Any, ...]]:
    """The head messages of these streams, with what fences their outcomes."""
    stream = streams.c
    return select(
        _M.media_id,
        _M.seq,
        _M.kind,
        _M.payload,
        _M.idempotency_key,
        _M.user_id,
        _M.request_id,
        stream.uncertain,
        stream.lease_epoch,
        stream.attempts,
        stream.refusals,
        func.coalesce(_M.changed_at, _M.created_at).label("changed_at"),
        func.coalesce(_EPOCH, _ONE).label("epoch"),
    ).join_from(streams, MESSAGE, and_(stream.media_id == _M.media_id, _M.seq == stream.acked_seq + _ONE))
