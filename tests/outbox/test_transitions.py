"""Transitions of a message: delivered, retried after a backoff, or parked; transient failures never park it."""

import pytest

from app.database.models import MediaStatus
from app.errors import Unavailable
from app.outbox.admin import retry_parked
from app.outbox.decide import CONCLUDE_AFTER_SECONDS, Action, Transition
from app.outbox.dispatcher import Dispatcher
from app.outbox.messages import Attempt, Claim, Classification, Outcome, Verdict
from app.outbox.transitions import AppliedTransitions, apply_transitions
from tests.conftest import Clock
from tests.eventually import eventually
from tests.long import sqlite_first
from tests.outbox.world import (
    BUSY,
    CIRCUIT_WAIT,
    CONTRADICTED,
    DUPLICATE,
    LEASE,
    LIMITED_WAIT,
    LOST,
    MEDIA_WAIT,
    NOT_FOUND,
    OK,
    REFUSED,
    SERVER_ERROR,
    UNREACHABLE,
    Receiver,
    World,
    commits_that_seem_to_fail,
)

PROCESSING, PROCESSED = MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED
DELIVER_BROKE = "Sending failed with an unexpected error: ValueError: what is this"


def test_a_delivered_message_says_when_and_how(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media(PROCESSING)
    receiver.answer(media_id, DUPLICATE, OK)
    clock.advance(3)
    world.drive(world.dispatcher(receiver))
    ends = [(message.delivered_at, message.outcome) for message in world.messages(media_id)]
    assert ends == [(clock.seconds, Outcome.DUPLICATE), (clock.seconds, Outcome.ACCEPTED)]
    stream = world.stream(media_id)
    assert stream.acked_seq == 2
    assert stream.due_at is None
    assert stream.lease_owner is None
    assert stream.waiting_since is None


def test_a_failure_delays_its_own_item_only(world: World, receiver: Receiver, clock: Clock) -> None:
    troubled, fine = world.media(PROCESSING), world.media(PROCESSING)
    receiver.answer(troubled, SERVER_ERROR)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    assert receiver.of(troubled) == [1]
    assert receiver.of(fine) == [1, 2]
    stream = world.stream(troubled)
    assert stream.attempts == 1
    assert stream.due_at == clock.seconds + MEDIA_WAIT
    assert stream.lease_owner is None
    assert stream.failures == 1
    clock.advance(MEDIA_WAIT - 0.1)
    world.drive(dispatcher)
    assert receiver.of(troubled) == [1]
    clock.advance(0.2)
    world.drive(dispatcher)
    assert receiver.of(troubled) == [1, 1, 2]
    assert world.stream(troubled).attempts == 0


def test_a_retry_after_beyond_the_backoff_is_honoured(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media()
    receiver.answer(media_id, Classification(Verdict.RETRY, "408", 408, retry_after=MEDIA_WAIT * 5))
    world.drive(world.dispatcher(receiver))
    assert world.stream(media_id).due_at == clock.seconds + MEDIA_WAIT * 5


def test_a_media_refused_among_others_is_parked_at_its_second_attempt_and_others_go_on(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    refused, fine = world.media(PROCESSING), world.media(PROCESSING)
    receiver.answer(refused, OK, REFUSED, REFUSED)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    assert world.stream(refused).parked_at is None
    clock.advance(0.5)
    world.change(fine, PROCESSED)
    world.drive(dispatcher)
    clock.advance(1)
    world.drive(dispatcher)
    assert receiver.of(refused) == [1, 2, 2]
    assert receiver.of(fine) == [1, 2, 3]
    stream = world.stream(refused)
    assert stream.due_at is None
    assert stream.lease_owner is None
    assert stream.acked_seq == 1
    assert stream.park_reason == "422"
    assert stream.last_status == 422
    assert stream.attempts == 2
    assert stream.parked_at == clock.seconds


def test_what_is_contradicted_there_is_parked_at_once(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media()
    receiver.answer(media_id, CONTRADICTED)
    world.drive(world.dispatcher(receiver))
    assert world.stream(media_id).parked_at == clock.seconds


@sqlite_first
def test_a_media_refused_alone_is_parked_at_its_third_attempt_after_ten_minutes(world: World, clock: Clock) -> None:
    media_id = world.media()
    receiver = Receiver(REFUSED)
    dispatcher = world.dispatcher(receiver)
    began = clock.seconds
    while world.stream(media_id).parked_at is None:
        world.drive(dispatcher)
        clock.advance(1)
    assert receiver.of(media_id) == [1, 1, 1]
    assert clock.seconds - began == pytest.approx(CONCLUDE_AFTER_SECONDS, abs=2)


@sqlite_first
def test_where_everything_is_refused_nothing_is_parked_and_all_arrives_once_it_is_accepted(
    world: World, clock: Clock
) -> None:
    """Reliability row 38: the circuit opens with a reason, and streams parked in that streak are unparked."""
    receiver = Receiver()
    dispatcher = world.dispatcher(receiver)
    unlucky, before = world.media(PROCESSING), world.media(PROCESSING)
    receiver.answer(unlucky, OK, *[REFUSED] * 2)
    world.drive(dispatcher)
    clock.advance(1)
    world.change(before, PROCESSED)
    world.drive(dispatcher)  # one other gets through just before everything is refused
    assert world.stream(unlucky).parked_at is not None
    receiver.otherwise = REFUSED
    refused = [world.media(PROCESSING) for _ in range(30)]
    for _ in range(60):
        world.drive(dispatcher)
        clock.advance(1)
    assert world.circuit_row().reason == "refuses everything: 422"
    assert [stream.media_id for stream in world.streams() if stream.parked_at] == [unlucky]
    assert len(receiver.arrived) < 100
    receiver.otherwise = OK
    for _ in range(60):
        world.drive(dispatcher)
        clock.advance(1)
    assert world.circuit.is_closed
    assert all(world.stream(media_id).acked_seq == 2 for media_id in [*refused, unlucky])


def test_a_limited_answer_is_asked_for_five_times_over_ten_minutes_before_it_parks(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    media_id = world.media(PROCESSING)
    receiver.answer(media_id, OK, *[NOT_FOUND] * 100)
    dispatcher = world.dispatcher(receiver)
    began = clock.seconds
    while world.stream(media_id).parked_at is None:
        world.drive(dispatcher)
        clock.advance(LIMITED_WAIT * 2)
    assert clock.seconds - began >= CONCLUDE_AFTER_SECONDS
    assert receiver.of(media_id) == [1, *[2] * 31]
    assert world.stream(media_id).park_reason == "404 for long"
    assert world.stream(media_id).attempts == 31


def test_failures_never_count_towards_the_limit_of_refusals(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media()
    receiver.answer(media_id, *[NOT_FOUND, SERVER_ERROR, LOST] * 4, OK)
    dispatcher = world.dispatcher(receiver)
    for _ in range(13):
        world.drive(dispatcher)
        clock.advance(60)
    assert world.stream(media_id).parked_at is None
    assert world.stream(media_id).acked_seq == 1


def test_refusals_of_one_message_do_not_count_against_the_next(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media(PROCESSING)
    receiver.answer(media_id, *[NOT_FOUND] * 4, OK, *[NOT_FOUND] * 4, OK)
    dispatcher = world.dispatcher(receiver)
    for _ in range(10):
        world.drive(dispatcher)
        clock.advance(MEDIA_WAIT * 2)
    assert world.stream(media_id).acked_seq == 2


@pytest.mark.long
def test_five_hundred_failures_park_nothing(sqlite_world: World, receiver: Receiver, clock: Clock) -> None:
    world = sqlite_world
    media_id = world.media()
    receiver.answer(media_id, *[SERVER_ERROR, LOST, BUSY, UNREACHABLE] * 125)
    dispatcher = world.dispatcher(receiver)
    while len(receiver.arrived) < 501:
        world.drive(dispatcher)
        clock.advance(LEASE)
    stream = world.stream(media_id)
    assert stream.parked_at is None
    assert stream.acked_seq == 1


def test_a_deliver_function_that_raises_is_a_failure_of_unknown_outcome(world: World, clock: Clock) -> None:
    media_id = world.media()
    calls: list[bool] = []

    def deliver(message: object) -> Classification:
        calls.append(getattr(message, "outcome_unknown", False))
        if len(calls) == 1:
            raise ValueError("what is this")
        return OK

    dispatcher = world.dispatcher(deliver)
    world.drive(dispatcher)
    assert world.stream(media_id).last_error == DELIVER_BROKE
    clock.advance(MEDIA_WAIT * 2)
    world.drive(dispatcher)
    assert calls == [False, True]
    assert world.stream(media_id).acked_seq == 1


def test_every_attempt_is_stored_with_its_answer(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media()
    receiver.answer(media_id, Classification(Verdict.RETRY, "PUT answered 500", 500, excerpt="<h1>Oops</h1>"), OK)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    clock.advance(MEDIA_WAIT * 2)
    world.drive(dispatcher)
    kept = [(one.seq, one.verdict, one.status, one.detail, one.excerpt) for one in world.attempts(media_id)]
    assert kept == [(1, "retry", 500, "PUT answered 500", "<h1>Oops</h1>"), (1, "delivered", 200, "200", "")]
    assert all(one.duration >= 0 for one in world.attempts(media_id))


@pytest.mark.parametrize("verdict", list(Verdict))
def test_no_text_of_an_answer_can_keep_its_outcome_from_being_recorded(
    world: World, receiver: Receiver, verdict: Verdict
) -> None:
    media_id, other = world.media(), world.media()
    receiver.answer(media_id, Classification(verdict, "a NUL \0 and half a pair \ud83d", 500, excerpt="\0\udc80"))
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    assert len(world.attempts(media_id)) == 1
    assert world.stream(media_id).lease_owner is None
    if verdict is not Verdict.HOLD:
        assert world.stream(other).acked_seq == 1


def test_what_never_reached_the_other_side_is_tried_again_at_once(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    receiver.answer(media_id, UNREACHABLE, UNREACHABLE, OK)
    world.drive(world.dispatcher(receiver))
    assert receiver.of(media_id) == [1, 1, 1]
    assert world.stream(media_id).acked_seq == 1
    assert world.circuit.is_closed


def test_what_may_have_reached_the_other_side_is_not_tried_again_at_once(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    receiver.answer(media_id, UNREACHABLE, LOST, OK)
    world.drive(world.dispatcher(receiver))
    assert receiver.of(media_id) == [1, 1]
    assert world.stream(media_id).outcome_unknown


def test_everything_arrives_in_order_after_a_long_outage(sqlite_world: World, clock: Clock) -> None:
    world = sqlite_world
    receiver = Receiver(otherwise=UNREACHABLE)
    dispatcher = world.dispatcher(receiver)
    media_ids = [world.media(PROCESSING, PROCESSED) for _ in range(100)]
    for _ in range(100):
        world.drive(dispatcher)
        clock.advance(60)
    receiver.otherwise = OK
    receiver.arrived.clear()
    back_at = clock.seconds
    while any(stream.due_at is not None for stream in world.streams()):
        world.drive(dispatcher)
        clock.advance(CIRCUIT_WAIT)
        assert clock.seconds - back_at <= 120
    assert all(stream.parked_at is None and stream.acked_seq == 3 for stream in world.streams())
    assert all(receiver.of(media_id) == [1, 2, 3] for media_id in media_ids)


UNKNOWN_FATE = {"delivered": OK, "limited": NOT_FOUND, "failure": SERVER_ERROR, "refused": REFUSED, "busy": BUSY}


@pytest.mark.parametrize("kind", sorted(UNKNOWN_FATE))
def test_an_outcome_counts_once_though_its_commit_seemed_to_fail(world: World, clock: Clock, kind: str) -> None:
    media_id = world.media(PROCESSING)
    receiver = world.slow_receiver(UNKNOWN_FATE[kind])
    dispatcher = world.dispatcher(receiver)
    dispatcher.turn()
    receiver.wait_for(1)
    receiver.release.set()
    with commits_that_seem_to_fail(world.database):
        eventually(lambda: _raises_unavailable(dispatcher), "the outcome")
    recorded = world.values(media_id)
    receiver.otherwise = OK
    dispatcher.turn()
    assert world.values(media_id) == recorded
    assert len(world.attempts(media_id)) == 1
    assert receiver.of(media_id).count(1) == 1
    clock.advance(LEASE + 1)
    with world.database.write_transaction() as session:
        retry_parked(session, world.database.now, None)
    world.drive(dispatcher)
    assert world.stream(media_id).acked_seq == 2
    assert set(receiver.of(media_id)) == {1, 2}


def test_a_delivery_that_is_applied_again_after_the_next_one_changes_nothing(world: World, clock: Clock) -> None:
    media_id = world.media(PROCESSING, PROCESSED)
    attempt = Attempt(OK, at=clock.seconds, duration=0.1)

    def deliver(claim: Claim) -> AppliedTransitions:
        transition = Transition(Action.DELIVERED, claim, attempt, continues=True)
        with world.database.write_transaction() as session:
            return apply_transitions(session, world.queue, [transition], LEASE)

    with world.database.write_transaction() as session:
        [first] = world.queue.claim(session, "owner", 1, LEASE)
    continuing = deliver(first).continuing
    with world.database.read_transaction() as reading:
        [second] = world.queue.continue_with(reading, continuing)
    assert len(deliver(second).applied) == 1
    before = world.values(media_id)
    assert [lost.claim for lost in deliver(first).lost] == [first]
    assert world.values(media_id) == before


def test_a_claim_goes_on_at_once_though_the_commit_before_seemed_to_fail(world: World) -> None:
    media_id, dispatcher, receiver = _acknowledged_unheard(world)
    world.drive(dispatcher)
    assert receiver.of(media_id) == [1, 2]
    assert world.stream(media_id).acked_seq == 2
    assert len(world.attempts(media_id)) == 2


def test_a_claim_is_let_go_at_the_end_though_the_commit_before_seemed_to_fail(world: World, clock: Clock) -> None:
    media_id, dispatcher, _receiver = _acknowledged_unheard(world)
    dispatcher.finish()
    stream = world.stream(media_id)
    assert stream.acked_seq == 1
    assert stream.lease_owner is None
    assert stream.due_at == clock.seconds


def test_a_claim_that_another_has_taken_meanwhile_does_not_go_on(world: World, clock: Clock) -> None:
    media_id, dispatcher, receiver = _acknowledged_unheard(world)
    clock.advance(LEASE + 1)
    other = world.slow_receiver()
    world.dispatcher(other).turn()
    other.wait_for(1)
    taken = world.values(media_id)
    dispatcher.turn()
    assert world.values(media_id) == taken
    assert receiver.of(media_id) == [1]
    assert other.of(media_id) == [2]


def _acknowledged_unheard(world: World) -> tuple[str, Dispatcher, Receiver]:
    """Add a media item whose first delivery was committed although the dispatcher got an error."""
    media_id = world.media(PROCESSING)
    receiver = world.slow_receiver()
    dispatcher = world.dispatcher(receiver)
    dispatcher.turn()
    receiver.wait_for(1)
    receiver.release.set()
    with commits_that_seem_to_fail(world.database):
        eventually(lambda: _raises_unavailable(dispatcher), "the outcome")
    assert world.stream(media_id).acked_seq == 1
    return media_id, dispatcher, receiver


def _raises_unavailable(dispatcher: Dispatcher) -> bool:
    try:
        dispatcher.turn()
    except Unavailable:
        return True
    return False
