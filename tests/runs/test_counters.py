"""Counters of runs: added to once, with what they count, on each kind of database."""

from app.database import counters
from app.database.models import RunFailure
from app.queries.media_items import runs_under_way
from tests.conftest import Clock
from tests.runs.conftest import LEASE, WANTED, World, frame

Figures = dict[tuple[str, ...], float]


def figures(world: World) -> Figures:
    with world.database.read_transaction() as session:
        return counters.read(session)


def start(world: World) -> int:
    return world.runs.start_new(world.media(), WANTED)


def test_frames_and_the_length_of_a_run_are_counted_as_it_goes(world: World, clock: Clock) -> None:
    start(world)
    claimed = world.claimed()
    world.runs.record(claimed, [frame(0), frame(1, 0)], total=3)
    assert figures(world) == {(counters.FRAMES,): 2}
    clock.advance(7)
    world.runs.finish(claimed, [frame(2)])
    seconds = {(counters.RUN_SECONDS, "done", "10.0"): 1.0, (counters.RUN_SECONDS_SUM, "done"): 7.0}
    assert figures(world) == {(counters.FRAMES,): 3} | seconds


def test_failed_runs_are_counted_apart_however_they_failed(world: World, clock: Clock) -> None:
    start(world)
    world.runs.fail(world.claimed(), RunFailure.UNDECODABLE, "not a picture")
    start(world)
    world.runs.fail(world.claimed(), RunFailure.DETECTOR, "the detector died of it")
    told = figures(world)
    assert sum(count for name, count in told.items() if name[:2] == (counters.RUN_SECONDS, "failed")) == 2
    assert not [name for name in told if "done" in name]


def test_what_comes_after_the_lease_has_gone_is_not_counted(world: World, clock: Clock) -> None:
    start(world)
    late = world.claimed("one")
    clock.advance(LEASE + 1)
    world.runs.finish(world.claimed("two"), [frame(0)])
    told = figures(world)
    assert not world.runs.record(late, [frame(0)], total=1)
    assert not world.runs.finish(late, [frame(0)])
    assert not world.runs.fail(late, RunFailure.DETECTOR, "too late")
    assert figures(world) == told | {(counters.RUN_LEASES_LOST,): 3}
    assert told[counters.FRAMES,] == 1


def test_a_run_that_a_person_ended_has_lost_no_lease(world: World) -> None:
    start(world)
    claimed = world.claimed()
    world.runs.cancel(claimed.media_id, "ada", user="ada")
    assert not world.runs.record(claimed, [frame(0)], total=1)
    assert (counters.RUN_LEASES_LOST,) not in figures(world)


def test_runs_that_have_not_ended_are_counted_by_their_state(world: World) -> None:
    for _ in range(3):
        start(world)
    world.runs.finish(world.claimed(), [])
    world.claimed()
    with world.database.read_transaction() as session:
        assert runs_under_way(session) == {"queued": 1, "running": 1}
