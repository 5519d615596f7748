"""Runs as rows: one at a time per media item, leased to one process, ended once, each status with its message."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from app.database import Database
from app.database.models import MediaStatus, RunFailure, RunState
from app.errors import AlreadyProcessing, Unavailable
from app.runs.lifecycle import MAX_ATTEMPTS, RunRequest, Runs
from tests.conftest import Clock
from tests.runs.conftest import LEASE, WANTED, World, frame

NEW, PROCESSING, PROCESSED, ERROR = 1, 2, 3, 6


def test_a_run_is_queued_until_a_process_takes_it(world: World) -> None:
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    assert world.run(run_id).state == RunState.QUEUED
    assert world.status(media_id) == MediaStatus.NEW
    assert world.reported(media_id) == [NEW]
    claimed = world.claimed()
    assert claimed.run_id == run_id
    assert claimed.media_id == media_id
    assert claimed.attempts == 1
    assert claimed.confidence == 0.45
    assert claimed.frame_interval == 0.5
    assert claimed.request_id == "request-1"
    assert world.run(run_id).state == RunState.RUNNING
    assert world.status(media_id) == MediaStatus.AI_PROCESSING
    assert world.reported(media_id) == [NEW, PROCESSING]


def test_a_run_that_is_finished_has_all_its_frames_and_its_media_is_processed(world: World, clock: Clock) -> None:
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    claimed = world.claimed()
    clock.advance(3)
    assert world.runs.record(claimed, [frame(0), frame(1, 2)], total=4, skipped=1)
    assert world.run(run_id).frames_done == 2
    assert world.run(run_id).frames_total == 4
    assert world.run(run_id).packets_skipped == 1
    assert world.runs.finish(claimed, [frame(2, 0)], skipped=3)
    run = world.run(run_id)
    assert run.packets_skipped == 3
    assert run.state == RunState.DONE
    assert run.frames_done == 3
    assert run.frames_total == 3
    assert run.started_at == clock.seconds - 3
    assert run.finished_at == clock.seconds
    assert world.found(run_id) == [(0, 0), (1, 0), (1, 1)]
    assert world.status(media_id) == MediaStatus.AI_PROCESSED
    assert world.reported(media_id) == [NEW, PROCESSING, PROCESSED]
    assert world.runs.claim("two") is None
    assert world.runs.active() == {}


def test_a_run_that_fails_says_why_and_its_media_is_at_error(world: World) -> None:
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    assert world.runs.fail(world.claimed(), RunFailure.UNDECODABLE, "not a picture")
    run = world.run(run_id)
    assert run.state == RunState.FAILED
    assert run.failure == RunFailure.UNDECODABLE
    assert run.error == "not a picture"
    assert world.status(media_id) == MediaStatus.ERROR
    assert world.reported(media_id) == [NEW, PROCESSING, ERROR]


def test_a_media_item_can_be_processed_again_after_either_end(world: World) -> None:
    media_id = world.media()
    world.runs.start_new(media_id, WANTED)
    world.runs.fail(world.claimed(), RunFailure.DETECTOR, "broke")
    world.runs.start_new(media_id, WANTED)
    world.runs.finish(world.claimed(), [])
    world.runs.start_new(media_id, WANTED)
    world.runs.finish(world.claimed(), [])
    assert world.reported(media_id) == [NEW, PROCESSING, ERROR, PROCESSING, PROCESSED, PROCESSING, PROCESSED]


def test_a_run_rolled_back_leaves_no_status_and_no_message(world: World) -> None:
    """Status and message are part of the transaction that ends the run, so a failed commit takes both back."""
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    claimed = world.claimed()
    impossible = replace(frame(0).objects[0], confidence=2.0)
    with pytest.raises(IntegrityError):
        world.runs.finish(claimed, [replace(frame(0), objects=(impossible,))])
    assert world.run(run_id).state == RunState.RUNNING
    assert world.status(media_id) == MediaStatus.AI_PROCESSING
    assert world.reported(media_id) == [NEW, PROCESSING]
    assert world.found(run_id) == []


def test_the_oldest_run_is_taken_first_and_each_only_once(world: World) -> None:
    runs = [world.runs.start_new(world.media(), WANTED) for _ in range(3)]
    assert [world.claimed(owner).run_id for owner in ("one", "two", "one")] == runs
    assert world.runs.claim("two") is None


def test_a_media_has_one_run_under_way(world: World) -> None:
    media_id = world.media()
    world.runs.start_new(media_id, WANTED)
    with pytest.raises(AlreadyProcessing):
        world.runs.start_new(media_id, WANTED)
    claimed = world.claimed()
    with pytest.raises(AlreadyProcessing):
        world.runs.start_new(media_id, WANTED)
    world.runs.finish(claimed, [])
    world.runs.start_new(media_id, WANTED)


def test_a_renewed_lease_does_not_expire(world: World, clock: Clock) -> None:
    world.runs.start_new(world.media(), WANTED)
    claimed = world.claimed("one")
    for _ in range(4):
        clock.advance(LEASE - 1)
        assert world.runs.renew(claimed)
        assert world.runs.claim("two") is None
    clock.advance(LEASE - 1)
    assert world.runs.record(claimed, [frame(0)], total=None)
    clock.advance(LEASE - 1)
    assert world.runs.claim("two") is None


def test_a_run_whose_process_died_is_taken_over_from_its_beginning(world: World, clock: Clock) -> None:
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    world.runs.record(world.claimed("died"), [frame(0), frame(1)], total=9)
    clock.advance(LEASE - 0.5)
    assert world.runs.claim("two") is None
    assert world.runs.active() == {run_id: "died"}
    clock.advance(1)
    assert world.runs.active() == {run_id: None}
    second = world.claimed("two")
    assert second.run_id == run_id
    assert second.attempts == 1
    assert world.run(run_id).frames_done == 0
    assert world.found(run_id) == []
    assert world.runs.finish(second, [frame(0)])
    assert world.found(run_id) == [(0, 0)]
    assert world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


def test_a_late_process_changes_nothing(world: World, clock: Clock) -> None:
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    late = world.claimed("frozen")
    clock.advance(LEASE + 1)
    second = world.claimed("two")

    def late_writes_change_nothing() -> None:
        before = vars(world.run(run_id)) | {"_sa_instance_state": None}
        assert not world.runs.renew(late)
        assert not world.runs.record(late, [frame(7)], total=7)
        assert not world.runs.finish(late, [frame(7)])
        assert not world.runs.fail(late, RunFailure.DETECTOR, "late")
        assert not world.runs.requeue(late, counted=True)
        assert vars(world.run(run_id)) | {"_sa_instance_state": None} == before

    late_writes_change_nothing()
    assert world.reported(media_id) == [NEW, PROCESSING]
    assert world.runs.finish(second, [frame(0)])
    late_writes_change_nothing()
    assert world.found(run_id) == [(0, 0)]
    assert world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


def test_a_run_that_was_ended_cannot_be_ended_again(world: World) -> None:
    media_id = world.media()
    world.runs.start_new(media_id, WANTED)
    claimed = world.claimed()
    assert world.runs.finish(claimed, [])
    assert not world.runs.fail(claimed, RunFailure.DETECTOR, "too late")
    assert not world.runs.finish(claimed, [frame(0)])
    assert world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


def test_a_run_handed_back_begins_anew(world: World) -> None:
    run_id = world.runs.start_new(world.media(), WANTED)
    claimed = world.claimed()
    world.runs.record(claimed, [frame(0)], total=9, skipped=2)
    assert world.runs.requeue(claimed, counted=False)
    run = world.run(run_id)
    assert run.state == RunState.QUEUED
    assert run.frames_done == 0
    assert run.packets_skipped == 0
    assert world.found(run_id) == []


def test_a_run_is_of_the_detector_that_did_it(world: World) -> None:
    run_id = world.runs.start_new(world.media(), WANTED)
    assert World(world.database, "detector-2").runs.claim("one")
    assert world.run(run_id).detector == "detector-2"


def test_a_run_that_ends_with_its_server_again_and_again_is_taken_over_without_a_try_being_counted(
    world: World, clock: Clock
) -> None:
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    for number in range(3 * MAX_ATTEMPTS):
        claimed = world.claimed(f"killed-{number}")
        assert claimed.run_id == run_id
        assert claimed.attempts == 1
        clock.advance(LEASE + 1)
    assert world.runs.finish(world.claimed(), [frame(0)])
    assert world.reported(media_id) == [NEW, PROCESSING, PROCESSED]


def test_tries_of_which_the_detector_died_count_whatever_became_of_servers_in_between(
    world: World, clock: Clock
) -> None:
    world.runs.start_new(world.media(), WANTED)
    assert world.runs.requeue(world.claimed(), counted=True)
    assert world.claimed("killed").attempts == 2
    clock.advance(LEASE + 1)
    assert world.claimed().attempts == 2


def test_a_run_handed_back_is_taken_at_once_and_only_counts_where_it_should(world: World) -> None:
    media_id = world.media()
    run_id = world.runs.start_new(media_id, WANTED)
    for _ in range(MAX_ATTEMPTS + 2):
        claimed = world.claimed()
        assert claimed.attempts == 1
        world.runs.record(claimed, [frame(0)], total=None)
        assert world.runs.requeue(claimed, counted=False)
        assert world.run(run_id).state == RunState.QUEUED
        assert world.run(run_id).frames_done == 0
    assert world.runs.requeue(world.claimed(), counted=True)
    assert world.claimed().attempts == 2
    assert world.reported(media_id) == [NEW, PROCESSING]


def test_a_result_of_the_same_detector_and_thresholds_is_found_again(world: World) -> None:
    media_id = world.media()
    run_id = world.runs.find_or_start(media_id, WANTED)
    assert world.runs.find_or_start(media_id, WANTED) == run_id  # under way
    world.runs.finish(world.claimed(), [])
    assert world.runs.find_or_start(media_id, replace(WANTED, request_id="another")) == run_id


@pytest.mark.parametrize("other", [replace(WANTED, confidence=0.2), replace(WANTED, frame_interval=1.0)])
def test_a_result_of_other_thresholds_is_none(world: World, other: RunRequest) -> None:
    media_id = world.media()
    run_id = world.runs.find_or_start(media_id, WANTED)
    world.runs.finish(world.claimed(), [])
    assert world.runs.find_or_start(media_id, other) > run_id


def test_a_result_of_another_detector_is_none(world: World) -> None:
    media_id = world.media()
    run_id = world.runs.find_or_start(media_id, WANTED)
    world.runs.finish(world.claimed(), [])
    assert World(world.database, "detector-2").runs.find_or_start(media_id, WANTED) > run_id


def test_a_failed_run_is_no_result(world: World) -> None:
    media_id = world.media()
    run_id = world.runs.find_or_start(media_id, WANTED)
    world.runs.fail(world.claimed(), RunFailure.DETECTOR, "broke")
    assert world.runs.find_or_start(media_id, WANTED) > run_id


def test_of_many_who_ask_at_once_all_get_the_same_run(live_world: World, database_url: str) -> None:
    media_id = live_world.media()
    with closing(Database(database_url)) as other_process, ThreadPoolExecutor(8) as people:
        worlds = [live_world, World(other_process)]
        asked = [people.submit(worlds[number % 2].runs.find_or_start, media_id, WANTED) for number in range(16)]
        assert len({answer.result() for answer in asked}) == 1
    assert len(live_world.runs.active()) == 1


def test_of_many_who_claim_at_once_each_run_goes_to_one(live_world: World, database_url: str) -> None:
    expected = {live_world.runs.start_new(live_world.media(), WANTED) for _ in range(6)}
    with closing(Database(database_url)) as other_process, ThreadPoolExecutor(8) as people:
        worlds = [live_world, World(other_process)]
        claims = [people.submit(worlds[number % 2].runs.claim, f"owner-{number}") for number in range(12)]
        taken = [claim.run_id for answer in claims if (claim := answer.result())]
    assert len(taken) == len(set(taken))
    # One that was passed over while another transaction held it is found by whoever asks next.
    taken += [claim.run_id for claim in iter(lambda: live_world.runs.claim("last"), None)]
    assert sorted(taken) == sorted(expected)


def test_no_further_run_is_let_in_where_too_many_wait(world: World) -> None:
    runs = Runs(world.database, world.queue, "detector-1", max_waiting=2)
    runs.start_new(world.media(), WANTED)
    runs.ensure_capacity("ada")
    runs.start_new(world.media(), WANTED)
    with pytest.raises(Unavailable):
        runs.ensure_capacity("ada")
    assert world.runs.finish(world.claimed(), [])
    runs.ensure_capacity("ada")
