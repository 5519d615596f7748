"""The results of a run, read a page at a time: any length in bounded memory.

Each page is read in a transaction of its own, because a client may take minutes to receive what lies between two of
them.
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
    """Frames of one try of a run: those from `first` on and before `end`."""

    run_id: int
    epoch: int
    first: int
    end: int

    @classmethod
    def of(
        cls, session: Session, run: DetectionRun, from_seconds: float | None = None, to_seconds: float | None = None
    ) -> "Frames":
        """What the run has found so far; with times, what it has found from the one on and before the other."""
        first, end = 0, run.frames_done
        if to_seconds is not None:
            end = _first_frame_at(session, run.id, to_seconds, end)
        if from_seconds is not None:
            first = _first_frame_at(session, run.id, from_seconds, end)
        return cls(run.id, run.results_epoch, first, end)


def pages(queries: Queries, frames: Frames) -> Iterator[Page]:
    """Rows in order, PAGE_ROWS in each page but the last, which may be empty.

    Raises Unavailable where the run has begun anew since: what was read before is void then.
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
        raise Unavailable(f"Run {frames.run_id} has begun anew meanwhile; ask again.")
    return session.execute(_PAGE, {"run": frames.run_id, "end": frames.end, **last}).all()


_BEHIND_ALL = 2**31 - 1


def frame_results(some_pages: Iterable[Page]) -> Iterator[FrameResult]:
    """The frames that the rows of these pages are of; frames without an object have none."""
    return media_items.frame_results(chain.from_iterable(some_pages))


def _first_frame_at(session: Session, run_id: int, seconds: float, end: int) -> int:
    """The number from which on every frame is at that time or later. Times grow with the numbers, so it is found by
    halving: no index of times is needed."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        found = session.execute(_NEXT_FRAME, {"run": run_id, "first": middle, "end": high}).first()
        if found is None or found.time >= seconds:
            high = middle
        else:
            low = found.frame + 1
    return low
