"""Queries of media items with their last run and delivery state, of lists, runs and results.

Nothing here begins or commits a transaction or changes anything.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, and_, bindparam, func, select, tuple_, union_all
from sqlalchemy.orm import Session

from app.database.models import Detection, DetectionRun, Media, MediaStatus, OutboxStream, RunState
from app.detection.results import DetectedObject, FrameResult
from app.errors import MediaNotFound
from app.formats.cursor import Cursor
from app.media.hashing import MEDIA_ID
from app.outbox.statements import new_stream
from app.runs import blocked_runs
from app.runs.statements import UNDER_WAY

MEDIA_TYPES = ("Video", "Image")
_NEWEST_FIRST = (Media.created_at.desc(), Media.id.desc())
_LIST = "media"


@dataclass(frozen=True, slots=True)
class MediaView:
    """A media item with its last run and its stream, if any; `all_blocked_reason` is why all detection is blocked."""

    media: Media
    run: DetectionRun | None
    stream: OutboxStream | None
    all_blocked_reason: str | None = None


@dataclass(frozen=True, slots=True)
class MediaProgress:
    """What changes while a media item is processed: its status and its last run."""

    media_status: int
    run: DetectionRun | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `next_cursor` fetches the next page and is None on the last one."""

    items: Sequence[MediaView]
    next_cursor: str | None


def view(session: Session, media_id: str) -> MediaView:
    """Return a media item. Raises MediaNotFound."""
    row = None
    if MEDIA_ID.fullmatch(media_id):  # another text may contain NUL, which PostgreSQL refuses
        row = session.execute(_VIEW, {"media": media_id}).one_or_none()
    if row is None:
        raise MediaNotFound(f"There is no media item {media_id!r}.")
    return MediaView(*row)


def progress(session: Session, media_id: str) -> MediaProgress:
    """Return the status and the last run of an existing media item."""
    row = session.execute(
        select(Media.media_status, DetectionRun)
        .outerjoin(DetectionRun, DetectionRun.id == _last_run())
        .where(Media.id == media_id)
    ).one()
    return MediaProgress(*row)


def view_of_new(media: Media) -> MediaView:
    """Return the view of a media item that was just recorded, without a query."""
    return MediaView(media, None, OutboxStream(**new_stream(media.id, media.user_id, media.created_at)))


def page(session: Session, *, status: int | None, media_type: str | None, limit: int, cursor: str | None) -> Page:
    """Return media items, newest first. Raises MalformedUpload for a cursor that no page returned."""
    behind = [] if cursor is None else [tuple_(Media.created_at, Media.id) < _position(cursor)]
    query = _views().order_by(*_NEWEST_FIRST).limit(limit + 1)
    if status is None and media_type is None:
        query = query.where(*behind)
    else:
        query = query.where(Media.id.in_(_filtered(status, media_type, behind, limit + 1)))
    items = [MediaView(*row) for row in session.execute(query)]
    more = len(items) > limit
    items = items[:limit]
    return Page(items, str(_cursor(items[-1].media)) if more else None)


def run_of(session: Session, run_id: int) -> DetectionRun:
    """Return a run. Raises MediaNotFound."""
    run = session.get(DetectionRun, run_id)
    if run is None:
        raise MediaNotFound(f"There is no run {run_id}.")
    return run


def run_of_media(session: Session, media_id: str, run_id: int) -> DetectionRun:
    """Return a run of a media item. Raises MediaNotFound if there is no such media item or run."""
    view(session, media_id)
    run = session.get(DetectionRun, run_id)
    if run is None or run.media_id != media_id:
        raise MediaNotFound(f"Media item {media_id} has no run {run_id}.")
    return run


def last_finished_run(session: Session, media_id: str) -> DetectionRun:
    """Return the last run of a media item that is done. Raises MediaNotFound if there is no such media item or run."""
    view(session, media_id)
    run = session.scalar(
        select(DetectionRun)
        .where(DetectionRun.media_id == media_id, DetectionRun.state == RunState.DONE)
        .order_by(DetectionRun.id.desc())
        .limit(1)
    )
    if run is None:
        raise MediaNotFound(f"No run of media item {media_id} has finished yet.")
    return run


def runs_under_way(session: Session) -> dict[str, int]:
    """Return how many runs wait and how many are under way, by state."""
    rows = session.execute(select(DetectionRun.state, func.count()).where(UNDER_WAY).group_by(DetectionRun.state))
    return {str(state): count for state, count in rows}


def oldest_run_age(session: Session, now: ColumnElement[float]) -> float:
    """Return the seconds that the oldest waiting run has waited; 0 if none waits."""
    queued = UNDER_WAY, DetectionRun.state == RunState.QUEUED
    return max(0.0, session.scalar(select(now - func.min(DetectionRun.created_at)).where(*queued)) or 0.0)


def results(session: Session, run_id: int, *, first: int = 0, end: int | None = None) -> Iterator[FrameResult]:
    """Yield a run's results for frames from `first` to before `end`; frames without an object are left out."""
    statement, wanted = (_RESULTS, {}) if end is None else (_RESULTS_BEFORE, {"end": end})
    return frame_results(session.execute(statement, {"run": run_id, "first": first} | wanted))


def frame_results(rows: Iterable[Row[Any]]) -> Iterator[FrameResult]:
    """Group rows of `detection`, in the order of frames, into results of frames."""
    for (frame, time), found in groupby(rows, key=lambda row: (row.frame, row.time)):
        rows_of_frame = list(found)
        objects = tuple(_object(row) for row in rows_of_frame)
        yield FrameResult(frame, time, objects, rows_of_frame[0].source_frame)


def _filtered(
    status: int | None, media_type: str | None, behind: Sequence[ColumnElement[bool]], limit: int
) -> Select[str]:
    """Select the ids of a page of a filtered list.

    An index has the media items of each status and type, newest first. The newest of each wanted pair are merged, so a
    page costs the same however rare its items are, and one index serves all filters.
    """
    statuses = list(MediaStatus) if status is None else [status]
    types = MEDIA_TYPES if media_type is None else [media_type]
    newest = [
        select(Media.id, Media.created_at)
        .where(Media.media_status == one_status, Media.media_type == one_type, *behind)
        .order_by(*_NEWEST_FIRST)
        .limit(limit)
        .subquery()
        for one_status, one_type in product(statuses, types)
    ]
    merged = union_all(*(select(part) for part in newest)).subquery()
    return select(merged.c.id).order_by(merged.c.created_at.desc(), merged.c.id.desc()).limit(limit)


def _views() -> Select[Media, DetectionRun, OutboxStream, str]:
    return (
        select(Media, DetectionRun, OutboxStream, blocked_runs.reason_for_all())
        .outerjoin(DetectionRun, and_(DetectionRun.media_id == Media.id, DetectionRun.id == _last_run()))
        .outerjoin(OutboxStream, OutboxStream.media_id == Media.id)
    )


def _last_run() -> ScalarSelect[int]:
    return select(func.max(DetectionRun.id)).where(DetectionRun.media_id == Media.id).correlate(Media).scalar_subquery()


_VIEW = _views().where(Media.id == bindparam("media"))
_RESULTS = (
    select(Detection.__table__)
    .where(Detection.run_id == bindparam("run"), Detection.frame >= bindparam("first"))
    .order_by(Detection.frame, Detection.ordinal)
)
_RESULTS_BEFORE = _RESULTS.where(Detection.frame < bindparam("end"))


def _object(row: Row[Any]) -> DetectedObject:
    return DetectedObject(
        class_num=row.class_num,
        label=row.label,
        confidence=row.confidence,
        center_x=row.center_x,
        center_y=row.center_y,
        width=row.width,
        height=row.height,
    )


def _cursor(media: Media) -> Cursor:
    return Cursor(_LIST, media.created_at, media.id)


def _position(cursor: str) -> tuple[float, str]:
    position = Cursor.parse(_LIST, cursor)
    return position.at, position.media_id
