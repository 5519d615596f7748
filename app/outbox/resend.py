"""`flask outbox resend`: enqueue again what the annotations service has lost.

For each media item whose record is missing or behind, a create and the statuses that lead to the current one are
appended to its stream, with new sequence numbers and idempotency keys. They repeat every pending or parked message of
the stream, which is therefore recorded as superseded. Each media item is one transaction, which changes nothing if the
item changed since its record was fetched. This module begins transactions.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sqlalchemy import null, select, update
from sqlalchemy.orm import Session

from app.database import Database, Queries, WriteTransaction, history
from app.database.models import DetectionRun, Media, OutboxMessage, OutboxStream
from app.errors import RecordsNotReadable
from app.media.status import StatusTimes, append_create_and_statuses
from app.outbox.admin import NO_ATTEMPTS
from app.outbox.auditor import Compared, RemoteAuditor
from app.outbox.messages import Outcome
from app.outbox.queue import OutboxQueue
from app.outbox.remote_audit import Difference, ExpectedRemoteState, RemoteState, changed_since, expected_for
from app.outbox.schedule import LONGEST_LEASE

RETRY_SECONDS = 0.5
WAIT_SECONDS = LONGEST_LEASE + 5.0
"""How long a command waits for items whose messages are being sent."""


class _Deferred(Enum):
    """Why an item cannot be resent at this moment."""

    CHANGED = "it changed meanwhile"
    LEASED = "a message of it is being sent right now"


@dataclass(frozen=True, slots=True)
class Selection:
    """The items to resend: these ids, or all changed since a time (seconds since 1970), or all that differ."""

    media_ids: Sequence[str] | None = None
    since: float | None = None

    @property
    def needs_records(self) -> bool:
        """Whether the annotations service's records are needed to choose the items."""
        return self.media_ids is None and self.since is None


@dataclass(slots=True)
class ResendReport:
    """`resent` lists (media id, problem, messages added); `left` lists (media id, reason) of items not resent."""

    asked: int = 0
    resent: list[tuple[str, str, int]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


class Resend:
    """One resend. It waits up to `wait_seconds` for items whose messages are being sent."""

    def __init__(
        self,
        database: Database,
        queue: OutboxQueue,
        auditor: RemoteAuditor,
        *,
        dry_run: bool = False,
        wait_seconds: float = WAIT_SECONDS,
        on_progress: Callable[[int], None] = lambda _done: None,
    ) -> None:
        self._database = database
        self._queue = queue
        self._auditor = auditor
        self._dry_run = dry_run
        self._wait_seconds = wait_seconds
        self._on_progress = on_progress
        self._report = ResendReport()
        self._under_way: list[str] = []

    def run(self, wanted: Selection) -> ResendReport:
        """Enqueue the selected items whose records are missing or behind.

        Raises Unavailable if the annotations service does not answer, and RecordsNotReadable if its records are needed
        and cannot be read. Messages added before the error stay.
        """
        buffered: list[Compared] = []
        for compared in self._comparisons(wanted):
            buffered.append(compared)
            if self._auditor.found or not wanted.needs_records:
                self._take(buffered)
                buffered = []
        if any(difference.state is RemoteState.MISSING for _, difference in buffered):
            raise RecordsNotReadable(
                f"The annotations service has none of {self._auditor.asked} media items: either all are lost, or it "
                "has no GET. If they are lost, resend all: flask outbox resend --since 1970-01-01T00:00:00Z"
            )
        self._wait_for_those_under_way()
        self._report.asked = self._auditor.asked
        if wanted.needs_records and not self._dry_run and not self._report.left:
            with self._database.write_transaction() as session:
                history.note_reconciled(session)
        return self._report

    def _comparisons(self, wanted: Selection) -> Iterator[Compared]:
        if wanted.needs_records:
            yield from self._auditor.comparisons()
            return
        for media_ids in self._named(wanted):
            yield from self._compare_items(media_ids)

    def _named(self, wanted: Selection) -> Iterator[list[str]]:
        if wanted.media_ids is not None:
            yield list(wanted.media_ids)
            return
        after = ""
        while True:
            page = Queries(self._database).fetch(page_of_ids, after, wanted.since or 0.0)
            if not page:
                return
            yield page
            after = page[-1]

    def _take(self, compared: Sequence[Compared]) -> None:
        for expected, difference in compared:
            self._decide(expected, difference)
            self._on_progress(self._auditor.asked)

    def _decide(self, expected: ExpectedRemoteState, difference: Difference) -> None:
        media_id, problem = difference.media_id, difference.problem
        if difference.state is RemoteState.SAME:
            return
        if expected.create_pending:
            self._report.left.append((media_id, "a create of it is pending"))
        elif difference.state is RemoteState.AHEAD:
            self._report.left.append((media_id, f"{problem}: start a new run with POST /detect/{media_id}"))
        elif difference.state is RemoteState.OTHER_TYPE:
            self._report.left.append((media_id, f"{problem}: another media item has its id there"))
        elif self._dry_run:
            self._report.resent.append((media_id, problem, 0))
        else:
            self._append(expected, problem)

    def _append(self, expected: ExpectedRemoteState, problem: str) -> None:
        with self._database.write_transaction() as session:
            outcome = resend_item(session, self._queue, expected)
        if isinstance(outcome, _Deferred):
            self._under_way.append(expected.media_id)
        else:
            self._report.resent.append((expected.media_id, problem, outcome))

    def _wait_for_those_under_way(self) -> None:
        give_up = time.monotonic() + self._wait_seconds
        while self._under_way and time.monotonic() < give_up:
            time.sleep(RETRY_SECONDS)
            again, self._under_way = self._under_way, []
            self._take(self._compare_items(again))
        self._report.left += [(media_id, _Deferred.LEASED.value) for media_id in self._under_way]

    def _compare_items(self, media_ids: Sequence[str]) -> list[Compared]:
        try:
            return self._auditor.compare_items(media_ids)
        except RecordsNotReadable as error:  # the caller named the items, so they count as lost
            unread = f"the record cannot be read: {error}"
            expected = self._auditor.expected(media_ids)
            return [(one, Difference(one.media_id, RemoteState.MISSING, unread)) for one in expected]


def page_of_ids(session: Session, after: str, since: float, limit: int = 500) -> list[str]:
    """Return the next `limit` ids of media items changed or delivered since `since`, in seconds since 1970."""
    query = select(Media.id).where(Media.id > after, changed_since(since)).order_by(Media.id).limit(limit)
    return list(session.scalars(query))


def resend_item(session: WriteTransaction, queue: OutboxQueue, expected: ExpectedRemoteState) -> int | _Deferred:
    """Append a create and statuses to one stream, in the caller's transaction; return how many messages were added."""
    # Lock the media row first and the stream second, as a change of status does.
    media = session.get_one(Media, expected.media_id, with_for_update=True)
    session.execute(select(OutboxStream.media_id).where(OutboxStream.media_id == media.id).with_for_update()).all()
    if expected_for(session, [media.id]) != [expected]:
        return _Deferred.CHANGED
    stream = session.get(OutboxStream, media.id)
    if stream is not None and stream.acked_seq < stream.last_seq:
        if stream.lease_owner is not None:
            return _Deferred.LEASED
        _supersede_waiting(session, queue, stream)
    run = session.execute(
        select(DetectionRun.started_at, DetectionRun.finished_at)
        .where(DetectionRun.media_id == media.id)
        .order_by(DetectionRun.id.desc())
        .limit(1)
    ).first()
    changed = append_create_and_statuses(session, queue, media, StatusTimes(*run) if run else StatusTimes(None, None))
    for seq, at in changed.items():
        session.execute(
            update(OutboxMessage)
            .where(OutboxMessage.media_id == media.id, OutboxMessage.seq == seq)
            .values(changed_at=at)
            .execution_options(synchronize_session=False)
        )
    return len(changed)


def _supersede_waiting(session: WriteTransaction, queue: OutboxQueue, stream: OutboxStream) -> None:
    session.execute(
        update(OutboxMessage)
        .where(OutboxMessage.media_id == stream.media_id, OutboxMessage.seq > stream.acked_seq)
        .values(delivered_at=queue.now, outcome=Outcome.SUPERSEDED)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(OutboxStream)
        .where(OutboxStream.media_id == stream.media_id)
        .values(
            acked_seq=OutboxStream.last_seq,
            due_at=null(),
            waiting_since=null(),
            parked_at=null(),
            park_reason=null(),
            **NO_ATTEMPTS,
        )
        .execution_options(synchronize_session=False)
    )
