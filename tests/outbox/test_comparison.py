"""What the annotations service has, held against what it was told."""

from collections.abc import Mapping
from typing import Any

from app.models import MediaStatus
from app.outbox.comparison import differences, page_of_told
from tests.outbox.world import Receiver, World


def record(media_id: str, **changes: Any) -> dict[str, Any]:
    """The other side's record of a media of the world, as it should be."""
    return {
        "id": media_id,
        "name": "photo.jpg",
        "path": f"/images/{media_id}.jpg",
        "mediaType": "Image",
        "mediaStatus": 1,
        "userId": "user-1",
    } | changes


def compared(world: World, records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    with world.database.reading() as session:
        told = page_of_told(session, "")
    return {row["mediaId"]: row["problem"] for row in differences(told, lambda media_id, _user: records.get(media_id))}


def test_a_record_as_it_was_told_is_no_difference(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    assert compared(world, {media_id: record(media_id)}) == {}


def test_a_record_that_is_missing_there_is_named(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    assert compared(world, {}) == {media_id: "the annotations service does not have it"}


def test_what_is_unlike_is_said_with_both_values(world: World, receiver: Receiver) -> None:
    media_id = world.media(MediaStatus.AI_PROCESSING)
    world.drive(world.dispatcher(receiver))
    [problem] = compared(world, {media_id: record(media_id, mediaType="Video")}).values()
    assert "mediaType is 'Video' there, 'Image' here" in problem
    assert "mediaStatus is 1 there, 2 here" in problem


def test_a_status_of_another_service_is_no_difference(world: World, receiver: Receiver) -> None:
    media_id = world.media(MediaStatus.AI_PROCESSING)
    world.drive(world.dispatcher(receiver))
    assert compared(world, {media_id: record(media_id, mediaStatus=4)}) == {}


def test_a_status_that_is_still_on_its_way_is_no_difference(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    world.change(media_id, MediaStatus.AI_PROCESSING)
    assert compared(world, {media_id: record(media_id)}) == {}


def test_a_media_of_which_nothing_has_arrived_is_not_asked_for(world: World) -> None:
    world.media()
    assert compared(world, {}) == {}
