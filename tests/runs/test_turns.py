"""The order of claims: users take turns, however many runs each of them has waiting."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import select

from app.database import Database
from app.database.models import DetectionRun
from app.runs.claims import ClaimedRun
from tests.conftest import Clock
from tests.runs.conftest import LEASE, WANTED, World


def ask(world: World, user: str, count: int = 1) -> list[int]:
    """Add runs of a user, each of another media item."""
    return [world.runs.start_new(world.media(), replace(WANTED, user_id=user)) for _ in range(count)]


def user_of(world: World, claimed: ClaimedRun) -> str:
    with world.database.read_transaction() as session:
        return session.scalars(select(DetectionRun.user_id).where(DetectionRun.id == claimed.run_id)).one()


def take(world: World, clock: Clock) -> ClaimedRun:
    clock.advance(0.01)
    return world.claimed()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_fifty_runs_of_one_user_delay_another_s_by_no_more_than_those_under_way(
    workers: int, world: World, clock: Clock
) -> None:
    ask(world, "ada", 50)
    under_way = [take(world, clock) for _ in range(workers)]
    [photo] = ask(world, "bob")
    world.runs.finish(under_way[0], [])
    assert take(world, clock).run_id == photo


def test_a_single_user_has_every_detector_and_runs_in_the_order_asked_for(world: World, clock: Clock) -> None:
    asked = ask(world, "ada", 5)
    assert [take(world, clock).run_id for _ in range(5)] == asked


def test_on_one_detector_users_take_turns(world: World, clock: Clock) -> None:
    ask(world, "ada", 3)
    ask(world, "bob", 3)
    ask(world, "cleo", 1)
    turns = []
    for _ in range(7):
        claimed = take(world, clock)
        turns.append(user_of(world, claimed))
        world.runs.finish(claimed, [])
    assert turns == ["ada", "bob", "cleo", "ada", "bob", "ada", "bob"]


def test_on_several_detectors_each_user_has_as_many(world: World, clock: Clock) -> None:
    ask(world, "ada", 6)
    ask(world, "bob", 6)
    turns = [user_of(world, take(world, clock)) for _ in range(6)]
    assert turns.count("ada") == turns.count("bob") == 3


def test_a_run_whose_process_died_counts_as_waiting(world: World, clock: Clock) -> None:
    [lost] = ask(world, "ada")
    take(world, clock)
    clock.advance(LEASE + 1)
    ask(world, "bob")
    turns = [take(world, clock) for _ in range(2)]
    assert {claimed.run_id for claimed in turns} >= {lost}
    assert world.runs.claim("another") is None


def test_of_several_processes_that_claim_at_once_none_takes_another_s(database: Database, database_url: str) -> None:
    world = World(database)
    expected = [*ask(world, "ada", 12), *ask(world, "bob", 12)]

    def take_all(_number: int) -> list[int]:
        with closing(Database(database_url)) as other:
            runs = World(other).runs
            return [claimed.run_id for claimed in iter(lambda: runs.claim("other"), None)]

    with ThreadPoolExecutor(4) as processes:
        taken = [run_id for claims in processes.map(take_all, range(4)) for run_id in claims]
    assert sorted(taken) == sorted(expected)
