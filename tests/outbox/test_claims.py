"""Claims: one dispatcher and one message of a media item at a time; a lost lease changes nothing any more."""

import threading
import time

import pytest
from sqlalchemy import event, text

from app.database.models import MediaStatus, OutboxStream
from app.outbox.dispatcher import Dispatcher
from app.outbox.messages import Classification, Message, Verdict
from tests.conftest import Clock
from tests.eventually import eventually
from tests.outbox.statements import LATER, Counter, add_backlog
from tests.outbox.world import (
    BUSY,
    LEASE,
    LOST,
    NOT_FOUND,
    OK,
    REFUSED,
    SERVER_ERROR,
    Receiver,
    World,
    busy_for,
)

PROCESSING, PROCESSED = MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED


def test_a_message_is_claimed_by_one_dispatcher_only(live_world: World) -> None:
    world, receiver = live_world, Receiver()
    media_ids = [world.media(PROCESSING) for _ in range(20)]
    dispatchers = [world.dispatcher(receiver, workers=3) for _ in range(4)]
    threads = [threading.Thread(target=world.drive, args=(dispatcher,)) for dispatcher in dispatchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receiver.seen) == sorted((media_id, seq) for media_id in media_ids for seq in (1, 2))


def test_the_next_message_of_a_media_goes_only_after_the_one_before_was_acknowledged(world: World) -> None:
    media_id = world.media(PROCESSING)
    slow, other = world.slow_receiver(), Receiver()
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    dispatcher.turn()
    world.drive(world.dispatcher(other))
    assert slow.seen == [(media_id, 1)]
    assert other.seen == []
    slow.release.set()
    world.drive(dispatcher)
    assert slow.seen == [(media_id, 1), (media_id, 2)]
    assert slow.most_at_once == 1


def test_a_claim_goes_on_with_what_was_added_behind_it(world: World) -> None:
    media_id = world.media()
    slow = world.slow_receiver()
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    world.change(media_id, PROCESSING)
    world.change(media_id, PROCESSED)
    slow.release.set()
    world.drive(dispatcher)
    assert slow.of(media_id) == [1, 2, 3]
    assert world.stream(media_id).lease_epoch == 1


def test_different_media_go_side_by_side(world: World) -> None:
    for _ in range(5):
        world.media()
    slow = world.slow_receiver()
    dispatcher = world.dispatcher(slow, workers=4)
    dispatcher.turn()
    slow.wait_for(4)
    dispatcher.turn()
    assert len(slow.seen) == 4
    slow.release.set()
    world.drive(dispatcher)
    assert len(slow.seen) == 5
    assert slow.most_at_once == 4


def test_the_longest_due_goes_first(world: World, clock: Clock, receiver: Receiver) -> None:
    media_ids = []
    for _ in range(4):
        media_ids.append(world.media())
        clock.advance(1)
    world.drive(world.dispatcher(receiver, workers=1))
    assert receiver.seen == [(media_id, 1) for media_id in media_ids]


def test_a_lease_that_has_not_run_out_is_respected(world: World, clock: Clock, receiver: Receiver) -> None:
    media_id = world.media()
    slow = world.slow_receiver()
    first = world.dispatcher(slow)
    first.turn()
    slow.wait_for(1)
    clock.advance(LEASE - 0.5)
    second = world.dispatcher(receiver)
    world.drive(second)
    assert receiver.seen == []
    clock.advance(1)
    world.drive(second)
    assert receiver.seen == [(media_id, 1)]
    slow.release.set()


def test_a_lease_that_ran_out_makes_the_outcome_of_its_message_unknown(
    world: World, clock: Clock, receiver: Receiver
) -> None:
    media_id = world.media()
    slow = world.slow_receiver()
    first = world.dispatcher(slow)
    first.turn()
    slow.wait_for(1)
    clock.advance(LEASE + 1)
    world.drive(world.dispatcher(receiver))
    assert [message.outcome_unknown for message in slow.arrived] == [False]
    assert [(message.media_id, message.outcome_unknown) for message in receiver.arrived] == [(media_id, True)]
    assert receiver.arrived[0].idempotency_key == slow.arrived[0].idempotency_key
    slow.release.set()


def test_a_lost_answer_makes_the_outcome_of_its_message_unknown_until_the_next(
    world: World, clock: Clock, receiver: Receiver
) -> None:
    media_id = world.media(PROCESSING)
    receiver.answer(media_id, LOST, SERVER_ERROR, OK)
    dispatcher = world.dispatcher(receiver)
    for _ in range(3):
        world.drive(dispatcher)
        clock.advance(60)
    told = [(message.seq, message.outcome_unknown) for message in receiver.arrived]
    assert told == [(1, False), (1, True), (1, True), (2, False)]


LATE_OUTCOMES = {
    "delivered": OK,
    "failure": SERVER_ERROR,
    "lost": LOST,
    "refused": REFUSED,
    "not-found": NOT_FOUND,
    "busy": BUSY,
    "retry-after": busy_for(500),
}


@pytest.fixture(params=sorted(LATE_OUTCOMES))
def late_outcome(request: pytest.FixtureRequest) -> Classification:
    return LATE_OUTCOMES[str(request.param)]


def test_a_late_writer_changes_nothing_while_another_is_sending(
    world: World, clock: Clock, late_outcome: Classification
) -> None:
    media_id = world.media(PROCESSING)
    frozen, slow = world.slow_receiver(late_outcome), world.slow_receiver()
    late, current = world.dispatcher(frozen), world.dispatcher(slow)
    late.turn()
    frozen.wait_for(1)
    clock.advance(LEASE + 1)
    current.turn()
    slow.wait_for(1)
    before = world.values(media_id)
    frozen.release.set()
    late.finish()
    assert world.values(media_id) == before
    assert world.circuit.is_closed
    assert world.attempts(media_id) == []
    slow.release.set()
    world.drive(current)
    assert slow.of(media_id) == [1, 2]


def test_a_late_writer_changes_nothing_after_another_was_done(
    world: World, clock: Clock, late_outcome: Classification
) -> None:
    media_id = world.media(PROCESSING)
    frozen, receiver = world.slow_receiver(late_outcome), Receiver()
    late = world.dispatcher(frozen)
    late.turn()
    frozen.wait_for(1)
    clock.advance(LEASE + 1)
    world.drive(world.dispatcher(receiver))
    before = world.values(media_id)
    frozen.release.set()
    late.finish()
    assert world.values(media_id) == before
    assert world.circuit.is_closed
    assert [attempt.verdict for attempt in world.attempts(media_id)] == ["delivered", "delivered"]
    assert receiver.of(media_id) == [1, 2]


def test_a_late_writer_changes_nothing_while_the_media_is_parked_or_backs_off(world: World, clock: Clock) -> None:
    for answer in (REFUSED, SERVER_ERROR):
        media_id = world.media(PROCESSING)
        frozen, receiver = world.slow_receiver(OK), Receiver(answer)
        late = world.dispatcher(frozen)
        late.turn()
        frozen.wait_for(1)
        clock.advance(LEASE + 1)
        world.drive(world.dispatcher(receiver))
        before = world.values(media_id)
        frozen.release.set()
        late.finish()
        assert world.values(media_id) == before
        assert world.stream(media_id).acked_seq == 0
        world.set_stream(media_id, due_at=clock.seconds + LATER, parked_at=None)


class _Seconds:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_no_send_starts_with_less_lease_left_than_its_deadline(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media()
    seconds = _Seconds()

    def freeze(_connection: object) -> None:
        seconds.now += 18.5

    dispatcher = world.dispatcher(receiver, lease=30, deadline=12, monotonic=seconds)
    event.listen(world.database.writer, "commit", freeze)
    dispatcher.turn()
    event.remove(world.database.writer, "commit", freeze)
    eventually(lambda: _has_come_back(dispatcher), "the claim")
    dispatcher.finish()
    stream = world.stream(media_id)
    assert receiver.seen == []
    assert stream.lease_epoch == 1
    assert stream.lease_owner is None
    assert stream.due_at == clock.seconds
    assert stream.attempts == 0
    assert stream.outcome_unknown is False
    assert world.attempts(media_id) == []


def test_a_claim_that_waited_long_for_the_database_is_sent_all_the_same(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    seconds = _Seconds()

    def wait_for_a_turn(_connection: object) -> None:
        seconds.now += 19

    event.listen(world.database.writer, "begin", wait_for_a_turn)
    world.drive(world.dispatcher(receiver, lease=30, deadline=12, monotonic=seconds))
    event.remove(world.database.writer, "begin", wait_for_a_turn)
    assert receiver.of(media_id) == [1]


def test_a_repeated_try_does_not_start_with_too_little_lease(world: World) -> None:
    media_id = world.media()
    seconds = _Seconds()
    arrived: list[str] = []

    def connect_slowly(message: Message) -> Classification:
        arrived.append(message.media_id)
        seconds.now += 10
        return Classification(Verdict.RETRY, "no connection", unsent=True)

    world.drive(world.dispatcher(connect_slowly, lease=30, deadline=12, monotonic=seconds))
    # Started at 0 and 10 seconds; at 20 there are 10 left, which is less than the deadline.
    assert arrived == [media_id, media_id]
    assert [attempt.detail for attempt in world.attempts(media_id)] == ["no connection"]


def test_a_dispatcher_that_can_send_no_more_asks_nothing_of_the_database(world: World) -> None:
    for _ in range(30):
        world.media()
    seconds, slow = _Seconds(), world.slow_receiver()
    answered = threading.Event()

    def deliver(message: Message) -> Classification:
        if answered.is_set():
            return slow(message)
        answered.set()
        seconds.now += 10
        return OK

    # A receiver that turns out slow makes it take fewer claims than it already has.
    dispatcher = world.dispatcher(deliver, workers=4, monotonic=seconds)
    dispatcher.turn()
    slow.wait_for(4)
    dispatcher.turn()
    with Counter(world.database) as counter:
        assert dispatcher.turn() > 1
    assert counter.statements == []


def test_letting_go_returns_what_was_not_sent_and_records_what_was(world: World, clock: Clock) -> None:
    media_ids = [world.media(PROCESSING) for _ in range(3)]
    slow = world.slow_receiver()
    dispatcher = world.dispatcher(slow, workers=3)
    dispatcher.turn()
    slow.wait_for(3)
    slow.release.set()
    dispatcher.finish()
    for media_id in media_ids:
        stream = world.stream(media_id)
        assert stream.acked_seq == 1
        assert stream.lease_owner is None
        assert stream.due_at == clock.seconds


def test_the_cost_of_a_turn_depends_neither_on_the_backlog_nor_on_the_history(world: World, clock: Clock) -> None:
    costs = []
    for backlog in (0, 10, 2000):
        if backlog:
            delivered = backlog == 2000
            add_backlog(world.database, backlog, due_at=clock.seconds + LATER, delivered=delivered)
        world.media(PROCESSING)
        costs.append(_cost_of_delivering(world))
        if backlog == 10:
            _forget_backlog(world)
    assert costs[0] == costs[1] == costs[2]
    # The look, circuit, claim, head; then circuit, stream, message, attempt, counters, next head, and a claim again.
    # On PostgreSQL a claim brings its heads with it, and a dispatcher's first turn looks at all that waits.
    assert costs[0] <= 12


def _cost_of_delivering(world: World) -> int:
    slow = world.slow_receiver()
    dispatcher = world.dispatcher(slow)
    with Counter(world.database) as counter:
        dispatcher.turn()
    slow.wait_for(1)
    slow.release.set()
    eventually(lambda: _has_come_back(dispatcher), "the answer")
    with Counter(world.database) as second:
        dispatcher.turn()
    world.drive(dispatcher)
    return counter.count + second.count


def _has_come_back(dispatcher: Dispatcher) -> bool:
    return dispatcher._workers.has_results


def _forget_backlog(world: World) -> None:
    with world.database.write_transaction() as session:
        for table in ("outbox_message", "outbox_stream"):
            session.execute(text(f"DELETE FROM {table} WHERE media_id LIKE '%b'"))
        session.execute(text("DELETE FROM media WHERE id LIKE '%b'"))


def test_a_claim_and_the_query_before_it_use_the_index_of_due_times(
    world: World, clock: Clock, receiver: Receiver
) -> None:
    add_backlog(world.database, 2000, due_at=clock.seconds + LATER)
    world.media()
    with Counter(world.database) as counter:
        world.drive(world.dispatcher(receiver))
    asking_for_due = [
        (statement, values)
        for statement, values in counter.statements
        if "min(outbox_stream.due_at)" in statement or "outbox_stream.due_at <= " in statement
    ]
    assert len(asking_for_due) >= 2
    for statement, values in asking_for_due:
        plan = _plan(world, statement, values)
        assert "ix_outbox_stream_due" in plan, plan
        assert not _scans_streams(plan), plan


def _plan(world: World, statement: str, values: object) -> str:
    explain = "EXPLAIN QUERY PLAN" if world.database.is_sqlite else "EXPLAIN"
    with world.database.write_transaction() as session:
        rows = session.connection().exec_driver_sql(f"{explain} {statement}", values)  # type: ignore[arg-type]
        return "\n".join(str(row[-1]) for row in rows)


def _scans_streams(plan: str) -> bool:
    lines = plan.splitlines()
    return any(
        line.strip() == f"SCAN {OutboxStream.__tablename__}" or "Seq Scan on outbox_stream" in line for line in lines
    )


def test_with_a_slow_receiver_what_no_thread_can_send_soon_is_left_to_others(live_world: World) -> None:
    for _ in range(12):
        live_world.media()

    def slowly(_message: Message) -> Classification:
        time.sleep(0.3)
        return OK

    dispatcher = live_world.dispatcher(slowly, workers=2)
    give_up = time.monotonic() + 20
    while sum(stream.acked_seq for stream in live_world.streams()) < 6:
        assert time.monotonic() < give_up
        dispatcher.sleep(dispatcher.turn())
    assert live_world.leased_to(dispatcher) <= 4
