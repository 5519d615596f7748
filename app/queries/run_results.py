"""Reads the results of a run page by page, in bounded memory.

Each page is a transaction of its own, because a client may take minutes to receive one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import Row, bindparam, select, tuple_
from sqlalchemy.orm import Session

from app.database import Queries
from app.database.models import Detection, DetectionRun
from app.detection.results import FrameResult
from app.errors import Unavailable
from app.queries import media_items

PAGE_ROWS = 1000

Page = Sequence[Row[Any]]

_AFTER = tuple_(Detection.frame, Detection.ordinal) > tuple_(bindparam("frame"), bindparam("ordinal"))
_PAGE = (
    select(Detection.__table__)
    .where(Detection.run_id == bindparam("run"), Detection.frame < bindparam("end"), _AFTER)
    .order_by(Detection.frame, Detection.ordinal)
    .limit(PAGE_ROWS)
)
_EPOCH = select(DetectionRun.results_epoch).where(DetectionRun.id == bindparam("run"))
_NEXT_FRAME = (
    select(Detection.frame, Detection.time)
    .where(
        Detection.run_id == bindparam("run"), Detection.frame >= bindparam("first"), Detection.frame < bindparam("end")
    )
    .order_by(Detection.frame)
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames from `first` to before `end` of one attempt of a run, identified by its `epoch`."""

    run_id: int
    epoch: int
    first: int
    end: int

    @classmethod
    def of(
        cls, session: Session, run: DetectionRun, from_seconds: float | None = None, to_seconds: float | None = None
    ) -> "Frames":
        """Return the frames processed so far, between two times if given."""
        first, end = 0, run.frames_done
        if to_seconds is not None:
            end = _first_frame_at(session, run.id, to_seconds, end)
        if from_seconds is not None:
            first = _first_frame_at(session, run.id, from_seconds, end)
        return cls(run.id, run.results_epoch, first, end)


def pages(queries: Queries, frames: Frames) -> Iterator[Page]:
    """Yield the rows in pages of PAGE_ROWS; the last page has fewer, or none.

    Raises Unavailable if the run has begun anew, which makes the earlier pages void.
    """
    last = {"frame": frames.first - 1, "ordinal": _BEHIND_ALL}
    while True:
        page = queries.fetch(_page, frames, last)
        yield page
        if len(page) < PAGE_ROWS:
            return
        last = {"frame": page[-1].frame, "ordinal": page[-1].ordinal}


def _page(session: Session, frames: Frames, last: Mapping[str, int]) -> Page:
    if session.scalar(_EPOCH, {"run": frames.run_id}) != frames.epoch:
        raise Unavailable(f"Run {frames.run_id} has begun anew meanwhile; try again.")
    return session.execute(_PAGE, {"run": frames.run_id, "end": frames.end, **last}).all()


_BEHIND_ALL = 2**31 - 1


def frame_results(some_pages: Iterable[Page]) -> Iterator[FrameResult]:
    """Group the rows of pages into results of frames."""
    return media_items.frame_results(chain.from_iterable(some_pages))


def _first_frame_at(session: Session, run_id: int, seconds: float, end: int) -> int:
    """Return the first frame number at or after a time, by bisection, because times grow with the frame numbers."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        found = session.execute(_NEXT_FRAME, {"run": run_id, "first": middle, "end": high}).first()
        if found is None or found.time >= seconds:
            high = middle
        else:
            low = found.frame + 1
    return low
