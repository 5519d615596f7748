"""Runs that yield to another user and continue later, and runs that a person cancels."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from app.database.models import MediaStatus, RunFailure, RunState
from app.errors import Forbidden, NotProcessing
from app.runs.claims import ClaimedRun
from tests.conftest import Clock
from tests.runs.conftest import LEASE, WANTED, World, frame

NEW, PROCESSING, PROCESSED, ERROR = 1, 2, 3, 6
POSITION = '{"a": "position"}'


def ask(world: World, user: str) -> int:
    return world.runs.start_new(world.media(), replace(WANTED, user_id=user))


def begin(world: World, user: str) -> ClaimedRun:
    """Start a run of a user; return its claim."""
    run_id = ask(world, user)
    claimed = world.claimed()
    assert claimed.run_id == run_id
    return claimed


def should_yield(world: World, claimed: ClaimedRun) -> tuple[bool, bool]:
    """Return whether the run should yield before and after it had its turn."""
    return (
        world.runs.should_yield(claimed, had_its_turn=False),
        world.runs.should_yield(claimed, had_its_turn=True),
    )


def test_a_run_that_yielded_goes_on_with_what_it_had_and_ends_with_all(world: World, clock: Clock) -> None:
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    first = world.claimed()
    began = clock.seconds
    world.runs.record(first, [frame(0, 2)], total=4)
    clock.advance(1)
    assert world.runs.pause(first, [frame(1, 1)], POSITION, skipped=1)
    waiting = world.run(run_id)
    assert waiting.state == "queued"
    assert waiting.attempts == 0
    assert waiting.frames_done == 2
    assert waiting.position == POSITION
    clock.advance(100)
    again = world.claimed()
    assert again.run_id == run_id
    assert again.attempts == 1
    assert again.position == POSITION
    assert again.boxes_done == 3
    assert not world.runs.record(first, [frame(7)], total=None)
    assert world.runs.finish(again, [frame(2)], skipped=1)
    run = world.run(run_id)
    assert run.state == RunState.DONE
    assert run.frames_done == 3
    assert run.boxes_done == 4
    assert run.packets_skipped == 1
    assert run.started_at == began
    assert world.found(run_id) == [(0, 0), (0, 1), (1, 0), (2, 0)]
    assert world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


def test_a_run_whose_process_dies_after_it_went_on_begins_anew(world: World, clock: Clock) -> None:
    ask(world, "ada")
    world.runs.pause(world.claimed(), [frame(0)], POSITION)
    gone_on = world.claimed()
    world.runs.record(gone_on, [frame(1)], total=None)
    before = world.run(gone_on.run_id).results_epoch
    clock.advance(LEASE + 1)
    anew = world.claimed()
    assert anew.position is None
    assert anew.boxes_done == 0
    assert anew.attempts == 1
    assert world.run(anew.run_id).frames_done == 0
    assert world.run(anew.run_id).results_epoch > before
    assert world.found(anew.run_id) == []


def test_a_run_that_yielded_to_another_detector_begins_anew(world: World) -> None:
    ask(world, "ada")
    world.runs.pause(world.claimed(), [frame(0)], POSITION)
    claimed = World(world.database, "detector-2").claimed()
    assert claimed.position is None
    assert world.found(claimed.run_id) == []


def test_what_was_found_counts_as_one_try_for_those_who_follow(world: World) -> None:
    ask(world, "ada")
    first = world.claimed()
    epoch = world.run(first.run_id).results_epoch
    world.runs.pause(first, [frame(0)], POSITION)
    world.claimed()
    assert world.run(first.run_id).results_epoch == epoch


def test_a_run_is_waited_for_by_somebody_else_who_has_nothing_under_way(world: World) -> None:
    adas = begin(world, "ada")
    assert should_yield(world, adas) == (False, False)
    ask(world, "ada")
    assert should_yield(world, adas) == (False, False)  # by nobody else
    ask(world, "bob")
    assert should_yield(world, adas) == (True, True)
    assert world.claimed().run_id  # bob's
    ask(world, "bob")
    assert should_yield(world, adas) == (False, False)  # bob has one under way


def test_a_run_that_yielded_waits_until_the_other_has_had_its_turn(world: World) -> None:
    adas = begin(world, "ada")
    ask(world, "bob")
    world.runs.pause(adas, [frame(0)], POSITION)
    bobs = world.claimed()
    assert bobs.user_id == "bob"
    assert should_yield(world, bobs) == (False, True)
    world.runs.pause(bobs, [], None)
    assert world.claimed().run_id == adas.run_id


def test_a_run_whose_process_died_waits_as_well(world: World, clock: Clock) -> None:
    begin(world, "bob")
    clock.advance(LEASE + 1)
    adas = begin(world, "ada")
    assert should_yield(world, adas) == (True, True)


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_is_cancelled_ends_at_error_and_is_reported_in_order(begun: bool, world: World) -> None:
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    claimed = world.claimed() if begun else None
    world.runs.cancel(media_id, "ada", user="ada")
    run = world.run(run_id)
    assert run.state == RunState.FAILED
    assert run.failure == RunFailure.CANCELLED
    assert run.error == "cancelled by ada"
    assert run.lease_owner is None
    assert world.status(media_id) == MediaStatus.ERROR
    assert world.reported(media_id) == [NEW, PROCESSING, ERROR]
    if claimed:
        assert not world.runs.record(claimed, [frame(0)], total=1)
        assert not world.runs.finish(claimed, [frame(0)])
        assert not world.runs.renew(claimed)
    assert world.runs.claim("another") is None
    world.runs.start_new(media_id, WANTED)  # it can be looked at again
    world.runs.finish(world.claimed(), [])
    assert world.reported(media_id) == [NEW, PROCESSING, ERROR, PROCESSING, PROCESSED]


def test_a_run_that_yielded_can_be_cancelled(world: World) -> None:
    media_id = world.media()
    world.runs.start_new(media_id, WANTED)
    world.runs.pause(world.claimed(), [frame(0)], POSITION)
    world.runs.cancel(media_id, "an administrator", user=None)
    assert world.reported(media_id) == [NEW, PROCESSING, ERROR]


def test_another_user_s_run_is_not_ended(world: World) -> None:
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    with pytest.raises(Forbidden):
        world.runs.cancel(media_id, "bob", user="bob")
    assert world.run(run_id).state == RunState.QUEUED
    world.runs.cancel(media_id, "an administrator", user=None)


def test_where_no_run_is_under_way_there_is_nothing_to_end(world: World) -> None:
    media_id = world.media()
    with pytest.raises(NotProcessing):
        world.runs.cancel(media_id, "ada", user="ada")
    world.runs.start_new(media_id, WANTED)
    world.runs.finish(world.claimed(), [])
    with pytest.raises(NotProcessing):
        world.runs.cancel(media_id, "ada", user="ada")


def test_a_run_that_is_cancelled_while_it_finishes_ends_once(world: World) -> None:
    for _ in range(8):
        media_id = world.media()
        world.runs.start_new(media_id, WANTED)
        claimed = world.claimed()

        def cancel(media_id: str = media_id) -> bool:
            try:
                world.runs.cancel(media_id, "ada", user="ada")
            except NotProcessing:
                return False
            return True

        with ThreadPoolExecutor(2) as people:
            cancelled = people.submit(cancel)
            finished = people.submit(world.runs.finish, claimed, [frame(0)])
            assert cancelled.result() != finished.result()
        assert world.reported(media_id) == [NEW, PROCESSING, ERROR if cancelled.result() else PROCESSED]
