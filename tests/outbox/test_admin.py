"""Administration of the outbox: retry and skip parked messages, prune old ones, show its state."""

import pytest

from app.database.models import MediaStatus
from app.errors import MediaNotFound
from app.outbox import admin, listing
from app.outbox.counts import outbox_status
from app.outbox.decide import CONCLUDE_AFTER_SECONDS, LIMITED_ATTEMPTS
from app.outbox.invariants import broken_invariants
from app.outbox.messages import Classification, Message, Outcome
from tests.conftest import Clock
from tests.outbox.world import CONTRADICTED, LOST, MEDIA_WAIT, NOT_FOUND, OK, SERVER_ERROR, Receiver, World

PROCESSING, PROCESSED = MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED
DAY = 86400.0


def park(world: World, *before: MediaStatus) -> str:
    """Add a media item whose first message is parked; return its id."""
    media_id = world.media(*before)
    receiver = Receiver()
    receiver.answer(media_id, CONTRADICTED)
    world.drive(world.dispatcher(receiver))
    assert world.stream(media_id).parked_at is not None
    return media_id


def retry(world: World, *media_ids: str) -> list[str]:
    """Retry these media items, or all if none is given."""
    with world.database.write_transaction() as session:
        return admin.retry_parked(session, world.database.now, media_ids or None)


def skip(world: World, media_id: str) -> int:
    with world.database.write_transaction() as session:
        return admin.skip_head(session, world.database.now, media_id)


def prune(world: World, *, days: float = 7, batch: int = 500) -> int:
    with world.database.write_transaction() as session:
        return admin.prune(session, world.database.now, older_than_days=days, batch=batch)


def test_what_was_parked_is_delivered_after_a_retry(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = park(world, PROCESSING)
    clock.advance(100)
    assert retry(world, media_id) == [media_id]
    stream = world.stream(media_id)
    assert stream.due_at == clock.seconds
    assert stream.parked_at is None
    assert stream.park_reason is None
    world.drive(world.dispatcher(receiver))
    assert receiver.of(media_id) == [1, 2]


def test_a_retry_resets_the_limit_of_a_limited_answer(world: World, clock: Clock) -> None:
    media_id = world.media()
    receiver = Receiver(NOT_FOUND)
    dispatcher = world.dispatcher(receiver)
    for _ in range(2):
        for _ in range(LIMITED_ATTEMPTS):
            assert world.stream(media_id).parked_at is None
            world.drive(dispatcher)
            clock.advance(CONCLUDE_AFTER_SECONDS / 4)
        assert world.stream(media_id).parked_at is not None
        retry(world, media_id)
    assert len(receiver.arrived) == 2 * LIMITED_ATTEMPTS


def test_a_retry_of_all_takes_every_parked_one_and_nothing_else(world: World, clock: Clock) -> None:
    parked = [park(world), park(world)]
    waiting = world.media()
    receiver = Receiver()
    receiver.answer(waiting, SERVER_ERROR)
    world.drive(world.dispatcher(receiver))
    due_at = world.stream(waiting).due_at
    clock.advance(1)
    assert sorted(retry(world)) == sorted(parked)
    assert world.stream(waiting).due_at == due_at


def test_a_retry_of_what_is_not_parked_changes_nothing(world: World) -> None:
    media_id = world.media()
    assert retry(world, media_id, "f" * 16) == []
    assert world.stream(media_id).lease_epoch == 0


def test_a_retry_does_not_forget_that_the_message_may_have_arrived(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    media_id = world.media()
    receiver.answer(media_id, LOST, CONTRADICTED, OK)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    clock.advance(MEDIA_WAIT * 2)
    world.drive(dispatcher)
    retry(world, media_id)
    world.drive(dispatcher)
    assert [message.outcome_unknown for message in receiver.arrived] == [False, True, True]


def test_a_skip_drops_the_head_and_goes_on_with_the_next(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = park(world, PROCESSING, PROCESSED)
    clock.advance(5)
    assert skip(world, media_id) == 1
    head = world.messages(media_id)[0]
    assert head.outcome == Outcome.SKIPPED
    assert head.delivered_at == clock.seconds
    stream = world.stream(media_id)
    assert stream.last_error is None
    assert stream.park_reason is None
    assert stream.outcome_unknown is False
    world.drive(world.dispatcher(receiver))
    assert receiver.of(media_id) == [2, 3]


def test_a_skip_of_the_only_message_leaves_nothing_waiting(world: World, receiver: Receiver) -> None:
    media_id = park(world)
    skip(world, media_id)
    world.drive(world.dispatcher(receiver))
    stream = world.stream(media_id)
    assert receiver.seen == []
    assert stream.due_at is None
    assert stream.waiting_since is None
    assert stream.acked_seq == 1
    world.change(media_id, PROCESSING)
    world.drive(world.dispatcher(receiver))
    assert receiver.of(media_id) == [2]


@pytest.mark.parametrize("media_id", ["0000000000000001", "ffffffffffffffff"], ids=["waiting", "unknown"])
def test_only_what_is_parked_can_be_skipped(world: World, media_id: str) -> None:
    world.media()
    with pytest.raises(MediaNotFound, match=r"not parked|no messages"):
        skip(world, media_id)
    assert world.messages("0000000000000001")[0].outcome is None


def test_pruning_takes_what_is_past_retention_and_its_attempts(world: World, receiver: Receiver, clock: Clock) -> None:
    old = world.media(PROCESSING)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    clock.advance(7 * DAY)
    young = world.media()
    world.drive(dispatcher)
    waiting = world.media()
    assert prune(world) == 0
    clock.advance(1)
    assert prune(world) == 2
    assert world.messages(old) == []
    assert world.attempts(old) == []
    assert [message.seq for message in world.messages(young)] == [1]
    assert [message.seq for message in world.messages(waiting)] == [1]


def test_pruning_goes_batch_by_batch(world: World, receiver: Receiver, clock: Clock) -> None:
    for _ in range(5):
        world.media()
    world.drive(world.dispatcher(receiver))
    clock.advance(8 * DAY)
    assert [prune(world, batch=2) for _ in range(4)] == [2, 2, 1, 0]


def test_pruning_never_touches_what_came_before_something_parked(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    media_id = world.media(PROCESSING)
    receiver.answer(media_id, OK, CONTRADICTED)
    world.drive(world.dispatcher(receiver))
    clock.advance(1000 * DAY)
    assert prune(world) == 0
    assert [message.outcome for message in world.messages(media_id)] == ["accepted", None]


def test_a_pruned_media_goes_on_with_its_numbers(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media(PROCESSING)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    clock.advance(8 * DAY)
    prune(world)
    world.change(media_id, PROCESSED)
    world.drive(dispatcher)
    assert receiver.of(media_id) == [1, 2, 3]


@pytest.mark.parametrize("step", [1.0, 0.0, -1.0], ids=["forwards", "standing", "backwards"])
def test_whatever_a_batch_leaves_still_verifies(world: World, clock: Clock, step: float) -> None:
    media_id = world.media(PROCESSING, PROCESSED, PROCESSING, MediaStatus.ERROR)

    class Ticking(Receiver):
        def respond(self, _message: Message, answer: Classification) -> Classification:
            clock.advance(step)
            return answer

    began = clock.seconds
    world.drive(world.dispatcher(Ticking(), workers=1))
    clock.advance(began + 7 * DAY - 5 - clock.seconds)
    while world.messages(media_id):
        if not prune(world, batch=1):
            clock.advance(1)
        with world.database.read_transaction() as session:
            assert broken_invariants(session) == []


def test_the_status_counts_messages_that_wait_and_media_that_are_parked(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    world.media()
    world.drive(world.dispatcher(receiver))
    park(world, PROCESSING)
    first = world.media(PROCESSING, PROCESSED)
    clock.advance(40)
    world.media()
    clock.advance(2)
    with world.database.read_transaction() as session:
        found = outbox_status(session, world.database.now)
    assert found.pending == 4
    assert found.parked == 1
    assert found.delivered_last_hour == 1
    assert found.oldest_age == 42
    assert world.stream(first).waiting_since == clock.seconds - 42


def test_the_history_shows_every_attempt_of_every_message(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media(PROCESSING)
    receiver.answer(media_id, SERVER_ERROR, OK, CONTRADICTED)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    clock.advance(MEDIA_WAIT * 2)
    world.drive(dispatcher)
    with world.database.read_transaction() as session:
        history = listing.history(session, media_id)
    told = [(message.seq, [attempt.verdict for attempt in attempts]) for message, attempts in history.messages]
    assert told == [(1, ["retry", "delivered"]), (2, ["park"])]
    assert history.stream.park_reason == "409, a video there"


def test_of_a_long_history_the_newest_part_can_be_asked_for(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media(PROCESSING)
    receiver.answer(media_id, OK, SERVER_ERROR, SERVER_ERROR, OK)
    dispatcher = world.dispatcher(receiver)
    for _ in range(3):
        world.drive(dispatcher)
        clock.advance(MEDIA_WAIT * 4)
    shown = {}
    with world.database.read_transaction() as session:
        for newest in (1, 2, 100):
            found = listing.history(session, media_id, newest=newest).messages
            shown[newest] = [(message.seq, [attempt.verdict for attempt in attempts]) for message, attempts in found]
    assert shown == {
        1: [(2, ["delivered"])],
        2: [(1, []), (2, ["retry", "delivered"])],
        100: [(1, ["delivered"]), (2, ["retry", "retry", "delivered"])],
    }


def test_a_media_without_messages_has_no_history(world: World) -> None:
    with world.database.read_transaction() as session, pytest.raises(MediaNotFound):
        listing.history(session, "f" * 16)


def test_lists_show_each_state_in_its_own_order(world: World, receiver: Receiver, clock: Clock) -> None:
    delivered = world.media()
    world.drive(world.dispatcher(receiver))
    parked = park(world)
    waiting = world.media(PROCESSING)
    clock.advance(1)
    later = world.media()

    def listed(state: listing.State | None, limit: int = 50) -> list[tuple[str, int]]:
        with world.database.read_transaction() as session:
            rows = listing.first_page(session, state=state, limit=limit)
        return [(message.media_id, message.seq) for message, _stream in rows]

    assert listed("pending") == [(waiting, 1), (waiting, 2), (later, 1)]
    assert listed("parked") == [(parked, 1)]
    assert listed("delivered") == [(delivered, 1)]
    assert listed(None) == listed("pending") + listed("parked") + listed("delivered")
    assert listed(None, limit=4) == [*listed("pending"), (parked, 1)]
    assert listed(None, limit=2) == listed("pending", limit=2)
