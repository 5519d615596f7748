"""`flask outbox verify`: queries that find rows which violate the outbox's invariants.

Media items are checked in batches in the order of their ids, so that no query and no snapshot grows with the database.
Nothing here commits a transaction, and nothing is repaired: a violated invariant is a defect for a person to examine.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import xxhash
from sqlalchemy import ColumnElement, Row, Select, case, func, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.database.models import DetectionRun, Media, OutboxMessage, OutboxStream, RunState

MAX_REPORTED = 20
"""Rows that are reported for each invariant."""

BATCH_SIZE = 5000
"""Media items that are checked in one transaction."""

_SHARED = "two messages share an idempotency key"
_STREAM, _MESSAGE = OutboxStream, OutboxMessage
_ON_STREAM = _MESSAGE.media_id == _STREAM.media_id


def _unnumbered() -> Select[str, str]:
    """Streams whose waiting messages are not numbered acked_seq + 1 to last_seq; delivered ones may be pruned."""
    waiting = func.count(case((_MESSAGE.delivered_at.is_(None), _MESSAGE.seq)))  # seq is NULL without messages
    lowest = func.min(case((_MESSAGE.delivered_at.is_(None), _MESSAGE.seq)))
    return (
        select(_STREAM.media_id, literal("the waiting messages are not the ones between acked_seq and last_seq"))
        .outerjoin(_MESSAGE, _ON_STREAM)
        .group_by(_STREAM.media_id, _STREAM.last_seq, _STREAM.acked_seq)
        .having(
            or_(
                waiting != _STREAM.last_seq - _STREAM.acked_seq,
                lowest <= _STREAM.acked_seq,
                func.max(_MESSAGE.seq) > _STREAM.last_seq,
            )
        )
    )


def _gap() -> Select[str, str]:
    """Streams with a gap in the numbers. Pruning leaves none, because it deletes the first messages of a stream."""
    return (
        select(_MESSAGE.media_id, literal("there is a gap in the numbers of the messages"))
        .group_by(_MESSAGE.media_id)
        .having(func.max(_MESSAGE.seq) - func.min(_MESSAGE.seq) + 1 != func.count())
    )


def _undelivered_below() -> Select[str, str]:
    return (
        select(_MESSAGE.media_id, literal("a message at or below acked_seq was never delivered"))
        .join(_STREAM, _ON_STREAM)
        .where(_MESSAGE.seq <= _STREAM.acked_seq, _MESSAGE.delivered_at.is_(None))
    )


def _delivered_above() -> Select[str, str]:
    return (
        select(_MESSAGE.media_id, literal("a message above acked_seq counts as delivered"))
        .join(_STREAM, _ON_STREAM)
        .where(_MESSAGE.seq > _STREAM.acked_seq, _MESSAGE.delivered_at.is_not(None))
    )


def _status_disagrees() -> Select[str, str]:
    """Media items whose status differs from the status in their last message."""
    newest = aliased(OutboxMessage)
    return (
        select(Media.id, literal("the media's status is not the one of its last message"))
        .join(_STREAM, _STREAM.media_id == Media.id)
        .join(newest, (newest.media_id == Media.id) & (newest.seq == _STREAM.last_seq))
        .where(newest.payload["mediaStatus"].as_integer() != Media.media_status)
    )


def _processing_without_run() -> Select[str, str]:
    active = (
        select(DetectionRun.id)
        .where(DetectionRun.media_id == Media.id, DetectionRun.state == RunState.RUNNING)
        .exists()
    )
    waiting_again = (
        select(DetectionRun.id).where(DetectionRun.media_id == Media.id, DetectionRun.state == RunState.QUEUED).exists()
    )
    return select(Media.id, literal("the media is AIProcessing but no run of it is under way")).where(
        Media.media_status == 2, ~active, ~waiting_again
    )


_Check = tuple[Callable[[], Select[str, str]], InstrumentedAttribute[str]]

CHECKS: tuple[_Check, ...] = (
    (_unnumbered, _STREAM.media_id),
    (_gap, _MESSAGE.media_id),
    (_undelivered_below, _MESSAGE.media_id),
    (_delivered_above, _MESSAGE.media_id),
    (_status_disagrees, Media.id),
    (_processing_without_run, Media.id),
)
"""The checks, each with the column that assigns its rows to a batch."""


Fetch = Callable[..., Any]
"""Runs a query with its arguments in a read transaction, as `Queries.fetch` does."""


def walk(fetch: Fetch, on_progress: Callable[[int, int], None] = lambda _done, _total: None) -> list[dict[str, str]]:
    """Return the violations as {"mediaId", "problem"}, at most MAX_REPORTED for each invariant.

    Each batch is a transaction of its own. `on_progress(done, total)` is called with numbers of media items.
    """
    found: list[tuple[str, str]] = []
    keys, done, total, after = _Keys(), 0, fetch(_count), ""
    while ids := fetch(_batch, after):
        found += fetch(_broken, after, ids[-1])
        keys.add(key for key, _media_id in fetch(_keys, after, ids[-1]))
        after, done = ids[-1], done + len(ids)
        on_progress(done, total)
    found += [(media_id, _SHARED) for media_id in _holders(fetch, keys.duplicates())]
    return _shown(found)


def broken_invariants(session: Session) -> list[dict[str, str]]:
    """Return the same within one session."""
    return walk(lambda query, *arguments: query(session, *arguments))


def _count(session: Session) -> int:
    return session.scalars(select(func.count()).select_from(Media)).one()


def _batch(session: Session, after: str) -> Sequence[str]:
    """Return the next BATCH_SIZE media ids."""
    return session.scalars(select(Media.id).where(Media.id > after).order_by(Media.id).limit(BATCH_SIZE)).all()


def _broken(session: Session, after: str, last: str) -> list[tuple[str, str]]:
    """Return media items in (after, last] that violate an invariant, with the violation."""
    return [
        (media_id, problem)
        for check, column in CHECKS
        for media_id, problem in session.execute(check().where(*_within(column, after, last)).limit(MAX_REPORTED))
    ]


def _keys(session: Session, after: str, last: str) -> Sequence[Row[str, str]]:
    """Return the idempotency keys of media items in (after, last], each with its media id."""
    query = select(_MESSAGE.idempotency_key, _MESSAGE.media_id).where(*_within(_MESSAGE.media_id, after, last))
    return session.execute(query).all()


def _within(column: InstrumentedAttribute[str], after: str, last: str) -> tuple[ColumnElement[bool], ...]:
    return column > after, column <= last


class _Keys:
    """Finds keys that occur twice by an 8-byte hash of each; `_holders` then excludes collisions."""

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(256)]

    def add(self, keys: Iterable[str]) -> None:
        for key in keys:
            number = _hash(key)
            self._buckets[number & 0xFF].append(number)

    def duplicates(self) -> set[int]:
        twice = set()
        for bucket in self._buckets:
            if len(set(bucket)) < len(bucket):
                twice |= {number for number, times in Counter(bucket).items() if times > 1}
        return twice


def _hash(key: str) -> int:
    return xxhash.xxh64_intdigest(key.encode())


def _holders(fetch: Fetch, numbers: set[int]) -> list[str]:
    """Return a media id for each key that several messages share, among keys with these hashes."""
    media: dict[str, list[str]] = defaultdict(list)
    after = ""
    while numbers and (ids := fetch(_batch, after)):
        for key, media_id in fetch(_keys, after, ids[-1]):
            if _hash(key) in numbers:
                media[key].append(media_id)
        after = ids[-1]
    return [min(media_ids) for media_ids in media.values() if len(media_ids) > 1]


def _shown(found: list[tuple[str, str]]) -> list[dict[str, str]]:
    times: Counter[str] = Counter()
    shown = []
    for media_id, problem in found:
        times[problem] += 1
        if times[problem] <= MAX_REPORTED:
            shown.append({"mediaId": media_id, "problem": problem})
    return shown
