"""Updates of a claimed run's row and results, each fenced by the epoch of the claim.

A process whose lease was lost changes nothing. Nothing here begins or commits a transaction.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, delete, update

from app.database import WriteTransaction, counters
from app.database.models import Detection, DetectionRun, RunFailure, RunState
from app.detection.results import FrameResult
from app.runs.claims import ClaimedRun
from app.runs.statements import NOT_BLOCKED, RUN_LEASE, RunStatements, add_results, boxes_of


def update_if_leased(session: WriteTransaction, claimed: ClaimedRun, values: Mapping[str, object]) -> bool:
    """Set columns of the run; return False if the lease was lost, without counting it."""
    changed = session.execute(
        update(DetectionRun)
        .where(claimed.fence)
        .values(**values)
        .returning(DetectionRun.id)
        .execution_options(synchronize_session=False)
    )
    return changed.first() is not None


def update_run(session: WriteTransaction, claimed: ClaimedRun, values: Mapping[str, object]) -> bool:
    """Set columns of the run; return False if the lease was lost."""
    updated = update_if_leased(session, claimed, values)
    if not updated:
        count_lost_lease(session, claimed)
    return updated


def record_frames(
    session: WriteTransaction, claimed: ClaimedRun, results: Sequence[FrameResult], values: Mapping[str, object]
) -> bool:
    """Store the results of more frames, count them and set columns; return False if the lease was lost."""
    done = {
        "frames_done": DetectionRun.frames_done + len(results),
        "boxes_done": DetectionRun.boxes_done + boxes_of(results),
    }
    updated = update_run(session, claimed, done | dict(values))
    if updated:
        add_results(session, claimed.run_id, results)
        counters.add(session, counters.of_frames(len(results)))
    return updated


def finish_run(
    session: WriteTransaction,
    statements: RunStatements,
    claimed: ClaimedRun,
    results: Sequence[FrameResult],
    *,
    skipped: int,
    warnings: Sequence[str],
) -> float | None:
    """End the run as done with the results of its last frames; return the seconds since its start.

    Returns None if the lease was lost.
    """
    values = {
        "run": claimed.run_id,
        "epoch": claimed.epoch,
        "frames": len(results),
        "boxes": boxes_of(results),
        "skipped": skipped,
        "warnings": list(warnings) or None,
    }
    ended = session.core.execute(statements.finish, values).first()
    if ended is None:
        count_lost_lease(session, claimed)
        return None
    add_results(session, claimed.run_id, results)
    return float(ended[0])


def fail_run(
    session: WriteTransaction,
    fence: ColumnElement[bool],
    now: ColumnElement[float],
    failure: RunFailure,
    reason: str,
    **values: object,
) -> float | None:
    """End the run within the fence as failed; return the seconds since its start, None if there is no such run."""
    ended = session.execute(
        update(DetectionRun)
        .where(fence)
        .values(
            state=RunState.FAILED,
            finished_at=now,
            failure=failure,
            error=reason,
            **values,
            **RUN_LEASE.release(),
            **NOT_BLOCKED,
        )
        .returning(DetectionRun.finished_at - DetectionRun.started_at)
        .execution_options(synchronize_session=False)
    ).first()
    return None if ended is None else ended[0] or 0.0


def delete_results(session: WriteTransaction, claimed: ClaimedRun) -> None:
    """Delete the run's results, because it begins anew."""
    session.execute(delete(Detection).where(Detection.run_id == claimed.run_id))


def count_lost_lease(session: WriteTransaction, claimed: ClaimedRun) -> None:
    """Count the lease as lost to another process, unless a person has cancelled the run."""
    if session.get_one(DetectionRun, claimed.run_id).failure != RunFailure.CANCELLED:
        counters.add(session, {counters.RUN_LEASES_LOST: 1.0})
