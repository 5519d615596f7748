"""Superseded runs: deleted with their boxes after the retention, and nothing else."""

import pytest
from sqlalchemy import func, select

from app.database.models import Detection, DetectionRun, RunFailure
from app.runs import retention
from app.runs.retention import DAY, SupersededRuns
from tests.conftest import Clock
from tests.runs.conftest import WANTED, World, frame

DAYS = 7.0


def ended(world: World, media_id: str, boxes: int = 2, *, fails: bool = False) -> int:
    """Add a finished run of a media item; return its id."""
    run_id = world.runs.start_new(media_id, WANTED)
    claimed = world.claimed()
    if fails:
        world.runs.record(claimed, [frame(0, boxes)], total=None, skipped=0)
        assert world.runs.fail(claimed, RunFailure.TOO_LARGE, "too long")
    else:
        assert world.runs.finish(claimed, [frame(0, boxes), frame(1, boxes)], skipped=0)
    return run_id


def drop(world: World) -> int:
    return SupersededRuns(world.database, DAYS, sleep=lambda _seconds: None).drop()


def left(world: World) -> set[int]:
    with world.database.read_transaction() as session:
        return set(session.scalars(select(DetectionRun.id)))


def test_superseded_runs_go_once_their_end_is_long_enough_ago(world: World, clock: Clock) -> None:
    media_id = world.media()
    first, second, last = (ended(world, media_id) for _ in range(3))
    clock.advance(DAYS * DAY - 1)
    assert drop(world) == 0
    clock.advance(1)
    assert drop(world) == 2
    assert left(world) == {last}
    assert world.found(first) == world.found(second) == []
    assert world.found(last) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_the_last_run_that_was_done_stays_however_old_it_is(world: World, clock: Clock) -> None:
    alone, failed_later = world.media(), world.media()
    only = ended(world, alone)
    done, failed = ended(world, failed_later), ended(world, failed_later, fails=True)
    clock.advance(100 * DAY)
    assert drop(world) == 0
    assert left(world) == {only, done, failed}
    under_way = world.runs.start_new(failed_later, WANTED)
    assert drop(world) == 0
    assert world.runs.finish(world.claimed(), [], skipped=0)
    assert drop(world) == 2
    assert left(world) == {only, under_way}


def test_a_run_with_many_boxes_goes_in_batches_and_pages(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    monkeypatch.setattr(retention, "PAGE", 2)
    media = [world.media() for _ in range(3)]
    kept = set()
    for media_id in media:
        ended(world, media_id, boxes=5)
        kept.add(ended(world, media_id, boxes=1))
    clock.advance(DAYS * DAY)
    pauses: list[float] = []
    assert SupersededRuns(world.database, DAYS, sleep=pauses.append).drop() == 3
    assert left(world) == kept
    assert len(pauses) >= 3 * 2
    with world.database.read_transaction() as session:
        assert session.scalar(select(func.count()).select_from(Detection)) == 3 * 2


def test_it_ends_soon_where_the_service_stops(world: World, clock: Clock) -> None:
    media_id = world.media()
    runs = {ended(world, media_id) for _ in range(3)}
    clock.advance(DAYS * DAY)
    assert SupersededRuns(world.database, DAYS, sleep=lambda _seconds: None).drop(lambda: True) == 0
    assert left(world) == runs
