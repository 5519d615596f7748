"""Resending what the annotations service has lost: through the outbox, in order, and nothing else."""

from collections.abc import Mapping
from typing import Any

import pytest

from app.database import history
from app.database.models import MediaStatus
from app.errors import RecordsNotReadable, Unavailable
from app.outbox.auditor import RemoteAuditor
from app.outbox.invariants import broken_invariants
from app.outbox.messages import Message, MessageKind
from app.outbox.resend import Resend, ResendReport, Selection, resend_item
from tests.outbox.world import CONTRADICTED, OK, REFUSED, Receiver, World

PROCESSING, PROCESSED, ERROR = MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED, MediaStatus.ERROR


class OtherSide(Receiver):
    """An annotations service that keeps records and can lose them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, dict[str, Any]] = {}

    def __call__(self, message: Message) -> Any:
        answer = super().__call__(message)
        if answer is OK and message.kind is MessageKind.CREATE:
            self.records[message.media_id] = dict(message.payload)
        elif answer is OK:
            self.records[message.media_id]["mediaStatus"] = message.payload["mediaStatus"]
        return answer

    def find(self, media_id: str, _user: str) -> Mapping[str, Any] | None:
        return self.records.get(media_id)

    def reported(self, media_id: str) -> list[tuple[int, str, int]]:
        """Return the messages that it got about a media item: sequence number, kind and status."""
        return [
            (one.seq, one.kind.value, one.payload["mediaStatus"]) for one in self.arrived if one.media_id == media_id
        ]


@pytest.fixture
def other_side() -> OtherSide:
    return OtherSide()


def resend(world: World, other_side: OtherSide, wanted: Selection | None = None, **options: Any) -> ResendReport:
    auditor = RemoteAuditor(world.database, other_side.find)
    return Resend(world.database, world.queue, auditor, wait_seconds=0, **options).run(wanted or Selection())


def delivered(world: World, other_side: OtherSide, *statuses: MediaStatus) -> str:
    """Add a media item with all messages delivered; return its id."""
    media_id = world.media(*statuses)
    world.drive(world.dispatcher(other_side))
    return media_id


def assert_whole(world: World) -> None:
    with world.database.read_transaction() as session:
        broken = broken_invariants(session)
    assert [one for one in broken if "no run of it" not in one["problem"]] == []  # this world has no runs


@pytest.mark.parametrize("last", [PROCESSED, ERROR])
def test_a_missing_item_is_resent_in_order_with_new_numbers_and_keys(
    world: World, other_side: OtherSide, last: MediaStatus
) -> None:
    kept, lost = delivered(world, other_side, PROCESSING), delivered(world, other_side, PROCESSING, last)
    del other_side.records[lost]
    report = resend(world, other_side)
    assert [(media_id, count) for media_id, _, count in report.resent] == [(lost, 3)]
    world.drive(world.dispatcher(other_side))
    assert other_side.reported(lost)[3:] == [(4, "create", 1), (5, "status", 2), (6, "status", int(last))]
    assert len({message.idempotency_key for message in world.messages(lost)}) == 6
    assert len(other_side.reported(kept)) == 2, "nothing is sent for what is not missing"
    assert other_side.records[lost]["mediaStatus"] == last
    assert world.stream(lost).acked_seq == 6
    assert_whole(world)


def test_an_item_behind_is_resent(world: World, other_side: OtherSide) -> None:
    behind, same = delivered(world, other_side, PROCESSING, PROCESSED), delivered(world, other_side)
    other_side.records[behind]["mediaStatus"] = 1
    resend(world, other_side)
    world.drive(world.dispatcher(other_side))
    assert {media_id: found["mediaStatus"] for media_id, found in other_side.records.items()} == {behind: 3, same: 1}


def test_parked_messages_of_before_are_superseded(world: World, other_side: OtherSide) -> None:
    media_id, _other = delivered(world, other_side), delivered(world, other_side)
    other_side.answer(media_id, CONTRADICTED)
    world.change(media_id, PROCESSING)
    world.change(media_id, PROCESSED)
    world.drive(world.dispatcher(other_side))
    assert world.stream(media_id).parked_at is not None
    del other_side.records[media_id]
    resend(world, other_side)
    assert [message.outcome for message in world.messages(media_id)[:3]] == ["accepted", "superseded", "superseded"]
    world.drive(world.dispatcher(other_side))
    assert other_side.reported(media_id)[2:] == [(4, "create", 1), (5, "status", 2), (6, "status", 3)]
    assert_whole(world)


def test_twice_at_once_is_as_good_as_once(world: World, other_side: OtherSide) -> None:
    media_id, _other = delivered(world, other_side), delivered(world, other_side)
    del other_side.records[media_id]
    resend(world, other_side)
    assert resend(world, other_side).resent == []
    again = resend(world, other_side, Selection([media_id]))
    assert again.resent == []
    assert again.left == [(media_id, "a create of it is pending")]


def test_a_media_whose_message_is_being_sent_is_left_until_it_is_not(live_world: World, other_side: OtherSide) -> None:
    world = live_world
    media_id, _other = delivered(world, other_side), delivered(world, other_side)
    del other_side.records[media_id]
    world.change(media_id, PROCESSING)
    slow = world.slow_receiver(REFUSED)
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    assert resend(world, other_side).left == [(media_id, "a message of it is being sent right now")]
    slow.release.set()
    world.drive(dispatcher)
    assert [one for one, _, _ in resend(world, other_side).resent] == [media_id]


def test_an_item_that_changed_since_its_record_was_fetched_is_not_resent(world: World, other_side: OtherSide) -> None:
    media_id = delivered(world, other_side)
    [expected] = RemoteAuditor(world.database, other_side.find).expected([media_id])
    world.change(media_id, PROCESSING)
    world.drive(world.dispatcher(other_side))
    with world.database.write_transaction() as session:
        assert not isinstance(resend_item(session, world.queue, expected), int)
    assert len(world.messages(media_id)) == 2


def test_an_item_that_was_never_delivered_is_not_lost(world: World, other_side: OtherSide) -> None:
    delivered(world, other_side)
    waiting = world.media()
    refused = world.media()
    other_side.answer(refused, REFUSED)
    world.drive(world.dispatcher(lambda message: REFUSED if message.media_id == refused else other_side(message)))
    other_side.records.pop(waiting, None)
    world.set_stream(refused)
    assert refused not in [media_id for media_id, _, _ in resend(world, other_side).resent]


def test_a_named_item_is_resent_if_records_cannot_be_read(world: World, other_side: OtherSide) -> None:
    media_id = delivered(world, other_side, PROCESSING)

    def find(_media_id: str, _user: str) -> None:
        raise RecordsNotReadable("GET answered 405")

    auditor = RemoteAuditor(world.database, find)
    with pytest.raises(RecordsNotReadable, match="405"):
        Resend(world.database, world.queue, auditor).run(Selection())
    assert len(Resend(world.database, world.queue, auditor).run(Selection([media_id])).resent) == 1


def test_a_named_item_that_is_there_is_not_resent(world: World, other_side: OtherSide) -> None:
    media_id = delivered(world, other_side)
    report = resend(world, other_side, Selection([media_id]))
    assert report.asked == 1
    assert report.resent == []
    assert report.left == []


def test_since_a_moment_means_what_was_delivered_since(world: World, other_side: OtherSide, clock: Any) -> None:
    before = delivered(world, other_side)
    clock.advance(60)
    after = delivered(world, other_side)
    world.change(before, PROCESSING)
    clock.advance(60)
    world.drive(world.dispatcher(other_side))
    other_side.records.clear()
    assert [one for one, _, _ in resend(world, other_side, Selection(since=clock.seconds - 60)).resent] == [
        before,
        after,
    ]
    other_side.records.clear()
    world.drive(world.dispatcher(other_side))


def test_where_nothing_at_all_is_found_nothing_is_sent(world: World, other_side: OtherSide) -> None:
    """A service without GET answers 404, and so does one that has lost everything."""
    media_id = delivered(world, other_side)
    other_side.records.clear()
    with pytest.raises(Unavailable, match="--since"):
        resend(world, other_side)
    assert len(world.messages(media_id)) == 1


def test_a_dry_run_tells_and_changes_nothing(world: World, other_side: OtherSide) -> None:
    media_id, _other = delivered(world, other_side), delivered(world, other_side)
    del other_side.records[media_id]
    assert [one for one, _, _ in resend(world, other_side, dry_run=True).resent] == [media_id]
    assert len(world.messages(media_id)) == 1


def test_a_status_beyond_ours_is_left_to_a_person(world: World, other_side: OtherSide) -> None:
    media_id = delivered(world, other_side)
    other_side.records[media_id]["mediaStatus"] = 3
    [(left, reason)] = resend(world, other_side).left
    assert left == media_id
    assert f"POST /detect/{media_id}" in reason


def test_resent_messages_keep_the_times_of_their_changes(world: World, other_side: OtherSide, clock: Any) -> None:
    media_id, _other = delivered(world, other_side), delivered(world, other_side)
    del other_side.records[media_id]
    clock.advance(3600)
    resend(world, other_side)
    world.drive(world.dispatcher(other_side))
    assert other_side.arrived[-1].changed_at == 1.0, "when the media item was recorded"


def test_a_restoration_is_over_once_all_that_was_missing_is_said_again(world: World, other_side: OtherSide) -> None:
    delivered(world, other_side)
    with world.database.write_transaction() as session:
        history.begin_epoch(session, world.database.now, [])
    resend(world, other_side, dry_run=True)
    with world.database.read_transaction() as session:
        found = history.get(session)
    assert found is not None
    assert found.restored_at is not None
    resend(world, other_side)
    with world.database.read_transaction() as session:
        found = history.get(session)
    assert found is not None
    assert found.restored_at is None
    assert found.reached.epoch == 2
