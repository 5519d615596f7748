"""Clocks that are set forward or back by any amount: nothing waits for a time of the wrong clock."""

from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, text

from app.database import Topic
from app.database.clock_guard import ClockGuard
from app.database.models import DetectionRun, MediaStatus, RunState
from app.outbox.circuit import LONGEST_WAIT
from app.outbox.counts import outbox_status
from app.outbox.flush import Flush
from app.outbox.schedule import LONGEST_LEASE, OUTBOX_BOUNDS
from app.runs.claims import LEASE_SECONDS, RUN_BOUNDS, Claimant, Claims
from tests.conftest import Clock
from tests.outbox.world import BUSY, LEASE, SERVER_ERROR, Receiver, World

STEPS = [30 * 60.0, 86_400.0, 3650 * 86_400.0]
BOUNDS = [*OUTBOX_BOUNDS, *RUN_BOUNDS]


def set_back(world: World, clock: Clock, seconds: float) -> None:
    """Set the clock back, and run the clock guard once."""
    clock.advance(-seconds)
    ClockGuard(world.database, BOUNDS).work()


def run_of(world: World, media_id: str, user: str = "ada", **values: Any) -> int:
    run = {
        "media_id": media_id,
        "user_id": user,
        "detector": "d",
        "confidence": 0.5,
        "frame_interval": 1.0,
        "state": RunState.QUEUED,
        "created_at": 1.0,
    }
    with world.database.write_transaction() as session:
        row = DetectionRun(**run | values)
        session.add(row)
        session.flush()
        return row.id


@pytest.fixture
def woken(world: World) -> list[Topic]:
    """The topics that subscribers were notified of."""
    heard: list[Topic] = []
    for news in Topic:
        world.database.subscribe(news, partial(heard.append, news))
    return heard


@pytest.mark.parametrize("seconds", STEPS[1:])
def test_a_backoff_of_before_the_step_is_due_at_once(world: World, clock: Clock, seconds: float) -> None:
    media_id, receiver = world.media(), Receiver(SERVER_ERROR)
    world.drive(world.dispatcher(receiver))
    receiver.otherwise = Receiver().otherwise
    set_back(world, clock, seconds)
    assert world.stream(media_id).due_at == pytest.approx(clock.seconds)
    world.drive(world.dispatcher(receiver))
    assert world.stream(media_id).acked_seq == 1


def test_a_wait_that_can_be_is_left_as_it_is(world: World, clock: Clock) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(Receiver(SERVER_ERROR)))
    due = world.stream(media_id).due_at
    set_back(world, clock, 60)
    assert world.stream(media_id).due_at == due


@pytest.mark.parametrize("seconds", STEPS)
def test_a_lease_of_before_the_step_runs_out_within_its_usual_time(world: World, clock: Clock, seconds: float) -> None:
    """Its owner may be alive and sending; a claim at once would send the same message a second time."""
    media_id = world.media()
    world.dispatcher(world.slow_receiver()).turn()
    set_back(world, clock, seconds)
    stream = world.stream(media_id)
    assert stream.due_at == pytest.approx(clock.seconds + LONGEST_LEASE)
    assert stream.lease_owner is not None
    clock.advance(LONGEST_LEASE)
    world.drive(world.dispatcher(Receiver()))
    assert world.stream(media_id).acked_seq == 1


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
def test_a_send_under_way_while_the_clock_steps_is_recorded_under_its_one_key(
    world: World, clock: Clock, step: float
) -> None:
    media_id, slow = world.media(), world.slow_receiver()
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    clock.advance(step)
    ClockGuard(world.database, BOUNDS).work()
    slow.release.set()
    world.drive(dispatcher)
    assert world.stream(media_id).acked_seq == 1
    assert len({message.idempotency_key for message in slow.arrived}) == 1
    assert len(slow.arrived) == (1 if step < 0 else 2), "a lease that is a day old is over"


@pytest.mark.parametrize("delay", [2.0, 3600.0])
def test_an_open_circuit_is_probed_at_once(world: World, clock: Clock, receiver: Receiver, delay: float) -> None:
    media_id = world.media()
    world.open_circuit(delay=delay)
    set_back(world, clock, 86_400.0)
    world.drive(world.dispatcher(receiver))
    assert world.stream(media_id).acked_seq == 1
    assert world.circuit.is_closed


@pytest.mark.parametrize("seconds", STEPS)
def test_flush_reaches_what_the_step_left_far_ahead(world: World, clock: Clock, seconds: float) -> None:
    waiting, suspended = Receiver(SERVER_ERROR), Receiver(BUSY)
    media_ids = [world.media(), world.media()]
    world.drive(world.dispatcher(lambda message: (waiting if message.media_id == media_ids[0] else suspended)(message)))
    clock.advance(-seconds)
    report = Flush(world.database, world.breaker, world.dispatcher(Receiver())).run(wait=True, timeout=10)
    assert report.delivered == 2
    assert report.pending == 0


def test_flush_reaches_a_dead_lease_that_the_step_left_far_ahead(world: World, clock: Clock) -> None:
    media_id = world.media()
    world.set_stream(media_id, lease_owner="of one that died", due_at=clock.seconds + LEASE, lease_epoch=1)
    clock.advance(-86_400.0)
    assert Flush(world.database, world.breaker, None).run(wait=False, timeout=0).pending == 1
    clock.advance(LONGEST_LEASE)
    assert Flush(world.database, world.breaker, world.dispatcher(Receiver())).run(wait=True, timeout=10).pending == 0


@pytest.mark.parametrize("seconds", STEPS)
def test_a_run_whose_process_died_is_taken_over_within_its_usual_time(
    world: World, clock: Clock, seconds: float
) -> None:
    media_id = world.media(MediaStatus.AI_PROCESSING)
    run_id = run_of(
        world, media_id, state=RunState.RUNNING, lease_owner="of one that died", lease_until=clock.seconds + 15
    )
    set_back(world, clock, seconds)
    claimant = Claimant("another", "d", LEASE_SECONDS)
    with world.database.write_transaction() as session:
        assert Claims(world.database.now).lease(session, claimant) is None
    clock.advance(LEASE_SECONDS)
    with world.database.write_transaction() as session:
        claimed = Claims(world.database.now).lease(session, claimant)
    assert claimed is not None
    assert claimed.run_id == run_id


def test_a_user_whose_last_turn_was_dated_ahead_still_gets_turns(world: World, clock: Clock) -> None:
    served, other = world.media(), [world.media(), world.media()]
    run_of(world, served, "ada", state=RunState.DONE, finished_at=clock.seconds, claimed_at=clock.seconds + 86_400.0)
    first = run_of(world, served, "ada")
    run_of(world, other[0], "bea", state=RunState.DONE, finished_at=clock.seconds, claimed_at=clock.seconds - 1)
    run_of(world, other[0], "bea")
    with world.database.write_transaction() as session:
        claimed = Claims(world.database.now).lease(session, Claimant("one", "d", LEASE_SECONDS))
    assert claimed is not None
    assert claimed.run_id == first


def test_who_delivers_and_who_detects_is_woken_only_where_something_was_too_far_ahead(
    world: World, clock: Clock, woken: list[Topic]
) -> None:
    media_id = world.media()
    woken.clear()
    ClockGuard(world.database, BOUNDS).work()
    assert woken == []
    world.set_stream(media_id, due_at=clock.seconds + LONGEST_WAIT + 1)
    ClockGuard(world.database, BOUNDS).work()
    assert set(woken) == set(Topic)


def test_nothing_is_older_than_it_can_be_after_the_clock_was_set_back(world: World, clock: Clock) -> None:
    world.media()
    clock.advance(-60)
    with world.database.read_transaction() as session:
        assert outbox_status(session, world.database.now).oldest_age == 0


def test_a_bound_is_checked_by_an_index(world: World) -> None:
    """A round of the guard costs a few index lookups, however much waits."""
    if not world.database.is_sqlite:
        pytest.skip("SQLite tells its plan at any size of a table; PostgreSQL's would be another one at this size")
    for bound in BOUNDS:
        statement = select(bound.column).where(bound.exceeded(0.0))
        query = str(statement.compile(world.database.reader, compile_kwargs={"literal_binds": True}))
        with world.database.read_transaction() as session:
            [plan] = session.execute(text(f"EXPLAIN QUERY PLAN {query}")).all()
        assert "SEARCH" in plan.detail, query
