"""The annotations service's records compared with what was delivered."""

from collections.abc import Mapping
from typing import Any

import pytest

from app.database.models import MediaStatus
from app.errors import RecordsNotReadable
from app.outbox.auditor import RemoteAuditor
from app.outbox.remote_audit import RemoteState
from tests.outbox.world import CONTRADICTED, Receiver, World


def record(media_id: str, **changes: Any) -> dict[str, Any]:
    """Return the record that the other side should have of a media item."""
    return {"id": media_id, "mediaType": "Image", "mediaStatus": 1} | changes


def compared(world: World, records: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return every difference as its state and its text."""
    auditor = RemoteAuditor(world.database, lambda media_id, _user: records.get(media_id))
    return {
        one.media_id: (one.state.value, one.problem)
        for _, one in auditor.comparisons()
        if one.state is not RemoteState.SAME
    }


def test_a_record_as_it_was_delivered_is_no_difference(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    assert compared(world, {media_id: record(media_id)}) == {}


def test_what_a_record_does_not_tell_is_no_difference(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    assert compared(world, {media_id: {}}) == {}


def test_a_record_that_is_missing_there_is_named(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    assert compared(world, {}) == {media_id: ("missing", "GET says that it is not there")}


@pytest.mark.parametrize(
    ("ours", "changes", "state", "problem"),
    [
        ((), {"mediaType": "Video"}, "other-type", "mediaType is 'Video' there, 'Image' here"),
        ((MediaStatus.AI_PROCESSING,), {}, "behind", "mediaStatus is 1 there, 2 here"),
        ((), {"mediaStatus": 3}, "ahead", "mediaStatus is 3 there, 1 here"),
    ],
)
def test_what_is_unlike_is_said_with_both_values(
    world: World,
    receiver: Receiver,
    ours: tuple[MediaStatus, ...],
    changes: dict[str, Any],
    state: str,
    problem: str,
) -> None:
    media_id = world.media(*ours)
    world.drive(world.dispatcher(receiver))
    assert compared(world, {media_id: record(media_id, **changes)}) == {media_id: (state, problem)}


def test_a_status_of_another_service_is_no_difference(world: World, receiver: Receiver) -> None:
    media_id = world.media(MediaStatus.AI_PROCESSING)
    world.drive(world.dispatcher(receiver))
    assert compared(world, {media_id: record(media_id, mediaStatus=4)}) == {}


def test_a_status_that_is_still_on_its_way_is_no_difference(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    world.change(media_id, MediaStatus.AI_PROCESSING)
    assert compared(world, {media_id: record(media_id)}) == {}


def test_a_parked_status_is_a_difference(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    receiver.answer(media_id, CONTRADICTED)
    world.change(media_id, MediaStatus.AI_PROCESSING)
    world.drive(world.dispatcher(receiver))
    assert compared(world, {media_id: record(media_id)})[media_id][0] == "behind"


def test_a_media_of_which_nothing_has_arrived_is_not_asked_for(world: World) -> None:
    world.media()
    assert compared(world, {}) == {}


def test_a_media_that_goes_on_while_it_is_asked_for_is_no_difference(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    looks = 0

    def find(asked: str, _user: str) -> Mapping[str, Any]:
        nonlocal looks
        looks += 1
        if looks == 1:
            world.change(media_id, MediaStatus.AI_PROCESSING)
            world.drive(world.dispatcher(receiver))
        return record(asked, mediaStatus=2)

    [(_, difference)] = RemoteAuditor(world.database, find).comparisons()
    assert difference.state == RemoteState.SAME
    assert looks == 2


def test_without_readable_records_no_difference_is_reported(world: World, receiver: Receiver) -> None:
    world.media()
    world.drive(world.dispatcher(receiver))

    def find(_media_id: str, _user: str) -> Mapping[str, Any]:
        raise RecordsNotReadable("GET answered 405")

    with pytest.raises(RecordsNotReadable):
        list(RemoteAuditor(world.database, find).comparisons())
