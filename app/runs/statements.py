"""The frequent statements about runs, built once: building one costs SQLAlchemy more than running it costs SQLite.

The statements take their values as parameters. Nothing here begins or commits a transaction.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Integer,
    Select,
    Table,
    and_,
    bindparam,
    insert,
    literal_column,
    null,
    or_,
    select,
    update,
)

from app.database import WriteTransaction
from app.database.lease import FIRST_EPOCH, Lease
from app.database.models import Detection, DetectionRun, RunState
from app.detection.results import FrameResult

RUN: Table = DetectionRun.__table__  # type: ignore[assignment]
DETECTION: Table = Detection.__table__  # type: ignore[assignment]
_R = RUN.c

_STATES: list[ColumnElement[str]] = [literal_column(f"'{state}'") for state in (RunState.QUEUED, RunState.RUNNING)]
UNDER_WAY: ColumnElement[bool] = _R.state.in_(_STATES)
"""A run waits or is claimed, written as in the partial indexes; SQLite uses a partial index only for its own condition.
"""

RUN_LEASE = Lease(owner=_R.lease_owner, epoch=_R.lease_epoch, until=_R.lease_until)
FIRST_ATTEMPT = 1

_REQUEST_COLUMNS = ("media_id", "user_id", "detector", "confidence", "frame_interval", "request_id")
_NOTHING_DONE: dict[str, Any] = {"frames_done": 0, "boxes_done": 0, "packets_skipped": 0}

NOT_BLOCKED: dict[str, Any] = {"waiting_kind": null(), "waiting_for": null()}
BLOCKED: ColumnElement[bool] = _R.waiting_kind.is_not(None)
"""A house fault blocks the run, written as in the partial index."""

_ADD_DETECTIONS = insert(DETECTION)

STATE = select(_R.state).where(_R.id == bindparam("run"))
"""Selects a run's state. Parameter: run."""


class RunStatements:
    """The statements; `now` is the database's clock as an SQL expression."""

    def __init__(self, now: ColumnElement[float]) -> None:
        self.any_claimable = select(_R.id).where(claimable(now)).limit(1)
        """Selects the id of a run that may be claimed."""
        new = {name: bindparam(name, type_=_R[name].type) for name in _REQUEST_COLUMNS} | _NOTHING_DONE
        self.queue: Executable = (
            insert(RUN).values(
                new | {"state": RunState.QUEUED, "attempts": 0, "lease_epoch": 0, "results_epoch": 0, "created_at": now}
            )
        ).returning(_R.id)
        """Inserts a queued run and returns its id. Parameters: _REQUEST_COLUMNS."""
        leased = {
            "state": RunState.RUNNING,
            "attempts": FIRST_ATTEMPT,
            "results_epoch": FIRST_EPOCH,
            **RUN_LEASE.claim(now, is_new=True),
            "created_at": now,
            "claimed_at": now,
            "started_at": now,
        }
        self.begin: Executable = insert(RUN).values(new | leased).returning(*RUN.c)
        """Inserts a leased run and returns its row. Parameters: _REQUEST_COLUMNS; owner; lease, in seconds."""
        frames = _R.frames_done + bindparam("frames")
        self.finish: Executable = (
            update(RUN)
            .where(_R.id == bindparam("run"), RUN_LEASE.fence(bindparam("epoch", type_=Integer())))
            .values(
                state=RunState.DONE,
                finished_at=now,
                frames_done=frames,
                frames_total=frames,
                boxes_done=_R.boxes_done + bindparam("boxes"),
                packets_skipped=bindparam("skipped"),
                warnings=bindparam("warnings", type_=_R.warnings.type),
                **RUN_LEASE.release(),
            )
            .returning(_R.finished_at - _R.started_at)
        )
        """Ends a claimed run as done and returns the seconds since its start; returns no row if the lease was lost.

        Parameters: run; epoch; frames and boxes, the numbers not counted before; skipped; warnings.
        """


def claimable(now: ColumnElement[float]) -> ColumnElement[bool]:
    """Return the condition that a run may be claimed: it waits for a detector only, or its lease has expired."""
    waits = and_(_R.state == RunState.QUEUED, _R.waiting_kind.is_(None))
    return and_(UNDER_WAY, or_(waits, RUN_LEASE.has_run_out(now)))


def usable_run(media_id: str, detector: str, confidence: float, frame_interval: float) -> Select[int]:
    """Select the last run of a media item that is under way, or that is done with this detector and these options."""
    is_equal = and_(
        _R.state == RunState.DONE,
        _R.detector == detector,
        _R.confidence == confidence,
        _R.frame_interval == frame_interval,
    )
    return select(_R.id).where(_R.media_id == media_id, or_(UNDER_WAY, is_equal)).order_by(_R.id.desc()).limit(1)


def add_results(session: WriteTransaction, run_id: int, results: Iterable[FrameResult]) -> None:
    """Insert the results of a run's frames, in the caller's transaction."""
    rows = [row for result in results for row in _rows(run_id, result)]
    if rows:
        session.core.execute(_ADD_DETECTIONS, rows)


def boxes_of(results: Iterable[FrameResult]) -> int:
    """Return how many objects were found in these frames."""
    return sum(len(result.objects) for result in results)


def _rows(run_id: int, result: FrameResult) -> list[dict[str, object]]:
    return [
        {
            "run_id": run_id,
            "frame": result.index,
            "ordinal": ordinal,
            "time": result.time,
            "source_frame": result.source_frame,
            "class_num": found.class_num,
            "label": found.label,
            "confidence": found.confidence,
            "center_x": found.center_x,
            "center_y": found.center_y,
            "width": found.width,
            "height": found.height,
        }
        for ordinal, found in enumerate(result.objects)
    ]
