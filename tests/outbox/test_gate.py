"""The gate: closed for all when the endpoint is unfit, tried by one probe at a time, open again at full speed."""

from contextlib import closing

from app.db import Database
from app.models import MediaStatus
from app.outbox.gate import Gate
from app.outbox.messages import Answer, Verdict
from tests.conftest import Clock
from tests.outbox.world import (
    BUSY,
    ENDPOINT,
    GATE_WAIT,
    LEASE,
    LOST,
    OK,
    REFUSED,
    TROUBLE,
    UNREACHABLE,
    Receiver,
    World,
    busy_for,
)

PROCESSING = MediaStatus.AI_PROCESSING


def close_gate(world: World, answer: Answer = BUSY) -> str:
    """Close it by an answer to a message of a new media; returns that media."""
    media_id = world.media()
    world.drive(world.dispatcher(Receiver(answer)))
    assert not world.gate_is_open
    return media_id


def closed_for(world: World) -> float:
    with world.database.reading() as session:
        return world.gate.condition(session).closed_for or 0.0


def test_nothing_is_sent_while_the_gate_is_closed(world: World, receiver: Receiver, clock: Clock) -> None:
    close_gate(world)
    world.media()
    clock.advance(GATE_WAIT - 0.1)
    world.drive(world.dispatcher(receiver))
    assert receiver.seen == []


def test_one_probe_at_a_time_goes_through(world: World, clock: Clock) -> None:
    close_gate(world)
    for _ in range(5):
        world.media()
    clock.advance(GATE_WAIT)
    slow = world.slow_receiver()
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    for _ in range(3):
        clock.advance(5)
        assert dispatcher.turn() > 0
    assert len(slow.arrived) == 1


def test_of_two_dispatchers_only_one_takes_the_probe(world: World, receiver: Receiver, clock: Clock) -> None:
    close_gate(world)
    for _ in range(5):
        world.media()
    clock.advance(GATE_WAIT)
    slow = world.slow_receiver()
    world.dispatcher(slow).turn()
    slow.wait_for(1)
    world.drive(world.dispatcher(receiver))
    assert receiver.seen == []


def test_a_probe_that_is_answered_opens_the_gate_at_full_speed(world: World, receiver: Receiver, clock: Clock) -> None:
    close_gate(world)
    for _ in range(5):
        world.media(PROCESSING)
    clock.advance(GATE_WAIT)
    world.drive(world.dispatcher(receiver))
    assert world.gate_is_open
    assert len(receiver.arrived) == 11
    assert receiver.most_at_once > 1 or len(receiver.arrived) == 11


def test_any_answer_that_does_not_itself_close_the_gate_opens_it(world: World, clock: Clock) -> None:
    for answer in (TROUBLE, REFUSED, OK):
        close_gate(world)
        clock.advance(GATE_WAIT)
        world.drive(world.dispatcher(Receiver(answer)))
        assert world.gate_is_open
        clock.advance(1000)
        world.drive(world.dispatcher(Receiver()))


def test_a_probe_without_an_answer_keeps_the_gate_closed(world: World, clock: Clock) -> None:
    close_gate(world)
    clock.advance(GATE_WAIT)
    receiver = Receiver(LOST)
    world.drive(world.dispatcher(receiver))
    assert len(receiver.arrived) == 1
    assert not world.gate_is_open
    assert world.gate_row().failures == 2


def test_a_failed_probe_makes_way_for_another_media(world: World, clock: Clock) -> None:
    bad = close_gate(world)
    clock.advance(GATE_WAIT)
    others = [world.media() for _ in range(3)]
    receiver = Receiver(BUSY)
    dispatcher = world.dispatcher(receiver)
    for _ in range(4):
        world.drive(dispatcher)
        clock.advance(GATE_WAIT)
    assert sorted(media_id for media_id, _seq in receiver.seen) == sorted([bad, *others])


def test_one_media_that_always_gets_no_answer_does_not_block_the_rest(world: World, clock: Clock) -> None:
    bad = close_gate(world)
    good = world.media()
    receiver = Receiver()
    receiver.answer(bad, *[LOST] * 20)
    dispatcher = world.dispatcher(receiver)
    clock.advance(GATE_WAIT)
    world.drive(dispatcher)
    clock.advance(GATE_WAIT)
    world.drive(dispatcher)
    assert world.stream(good).acked_seq == 1
    assert world.gate_is_open


def test_attempts_are_not_counted_while_the_gate_is_closed(world: World, clock: Clock) -> None:
    for answer in (BUSY, UNREACHABLE, LOST):
        media_id = close_gate(world)
        receiver = Receiver(answer)
        dispatcher = world.dispatcher(receiver)
        for _ in range(4):
            clock.advance(GATE_WAIT)
            world.drive(dispatcher)
        assert len(receiver.arrived) >= 4
        stream = world.stream(media_id)
        assert (stream.attempts, stream.refusals) == (0, 0)
        assert (stream.due_at or 0) <= clock.seconds + GATE_WAIT
        clock.advance(GATE_WAIT)
        world.drive(world.dispatcher(Receiver()))


def test_a_retry_after_longer_than_the_backoff_wins(world: World, clock: Clock) -> None:
    close_gate(world, busy_for(500))
    assert closed_for(world) == 500
    clock.advance(499)
    receiver = Receiver()
    world.drive(world.dispatcher(receiver))
    assert receiver.seen == []
    clock.advance(1)
    world.drive(world.dispatcher(receiver))
    assert len(receiver.seen) == 1


def test_the_backoff_wins_over_a_shorter_retry_after(world: World) -> None:
    close_gate(world, busy_for(GATE_WAIT / 2))
    assert closed_for(world) == GATE_WAIT


def test_a_longer_retry_after_that_comes_while_the_gate_is_closed_extends_it(world: World, clock: Clock) -> None:
    slow = _send_two(world, busy_for(100), busy_for(300))
    assert closed_for(world) == 300
    assert slow.most_at_once == 2


def test_a_shorter_retry_after_that_comes_while_the_gate_is_closed_changes_nothing(world: World) -> None:
    _send_two(world, busy_for(300), busy_for(100))
    assert closed_for(world) == 300
    assert world.gate_row().failures == 1


def _send_two(world: World, one: Answer, other: Answer) -> Receiver:
    slow = world.slow_receiver()
    slow.answer(world.media(), one)
    slow.answer(world.media(), other)
    dispatcher = world.dispatcher(slow, senders=2)
    dispatcher.turn()
    slow.wait_for(2)
    slow.release.set()
    world.drive(dispatcher)
    return slow


def test_a_failed_probe_does_not_shorten_a_retry_after_that_came_meanwhile(world: World, clock: Clock) -> None:
    late = world.slow_receiver(busy_for(400))
    world.media()
    slow_dispatcher = world.dispatcher(late)
    slow_dispatcher.turn()
    late.wait_for(1)
    close_gate(world)
    world.media()
    clock.advance(GATE_WAIT)
    probe = world.slow_receiver(BUSY)
    prober = world.dispatcher(probe)
    prober.turn()
    probe.wait_for(1)
    late.release.set()
    world.drive(slow_dispatcher)
    assert closed_for(world) == 400
    probe.release.set()
    world.drive(prober)
    assert closed_for(world) == 400


def test_a_late_success_of_before_does_not_open_the_gate(world: World, clock: Clock) -> None:
    slow = world.slow_receiver()
    early = world.media(PROCESSING)
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    close_gate(world)
    slow.release.set()
    world.drive(dispatcher)
    assert world.stream(early).acked_seq == 1
    assert slow.of(early) == [1]
    assert not world.gate_is_open


def test_a_late_failure_of_before_waits_no_shorter_than_the_gate(world: World, clock: Clock) -> None:
    slow = world.slow_receiver(BUSY)
    early = world.media()
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    close_gate(world)
    clock.advance(GATE_WAIT * 3)
    slow.release.set()
    dispatcher.finish()
    # Its turn to be the probe comes after those that waited already.
    assert (world.stream(early).due_at or 0) > clock.seconds


def test_a_probe_that_dies_costs_its_lease_and_no_more(world: World, receiver: Receiver, clock: Clock) -> None:
    close_gate(world)
    clock.advance(GATE_WAIT)
    dead = world.slow_receiver()
    world.dispatcher(dead).turn()
    dead.wait_for(1)
    other = world.media()
    clock.advance(LEASE - 1)
    second = world.dispatcher(receiver)
    world.drive(second)
    assert receiver.seen == []
    clock.advance(1)
    world.drive(second)
    assert world.gate_is_open
    assert world.stream(other).acked_seq == 1


def test_a_probe_that_lost_its_lease_does_not_judge_the_gate(world: World, clock: Clock) -> None:
    close_gate(world)
    clock.advance(GATE_WAIT)
    frozen = world.slow_receiver(OK)
    late = world.dispatcher(frozen)
    late.turn()
    frozen.wait_for(1)
    clock.advance(LEASE)
    world.drive(world.dispatcher(Receiver(busy_for(700))))
    frozen.release.set()
    late.finish()
    assert closed_for(world) == 700


def test_a_frozen_dispatcher_does_not_close_the_gate_that_others_found_open(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    world.media()
    frozen = world.slow_receiver(UNREACHABLE)
    late = world.dispatcher(frozen)
    late.turn()
    frozen.wait_for(1)
    clock.advance(LEASE + 1)
    world.drive(world.dispatcher(receiver))
    frozen.release.set()
    late.finish()
    assert world.gate_is_open


def test_a_probe_that_was_not_sent_lets_another_go_at_once(world: World, receiver: Receiver, clock: Clock) -> None:
    close_gate(world)
    clock.advance(GATE_WAIT)
    ticks = [0.0]

    def jumping() -> float:
        ticks[0] += 100
        return ticks[0]

    late = world.dispatcher(receiver, monotonic=jumping)
    late.turn()
    late.finish()
    assert receiver.seen == []
    world.drive(world.dispatcher(receiver))
    assert len(receiver.seen) == 1
    assert world.gate_is_open


def test_the_gate_is_kept_across_restarts_and_seen_by_others(world: World, receiver: Receiver, clock: Clock) -> None:
    close_gate(world, busy_for(300))
    with closing(Database(world.database.url.render_as_string(hide_password=False), now=clock.sql)) as another:
        with another.reading() as session:
            condition = Gate(ENDPOINT, another.now).condition(session)
        assert (condition.closed_for, condition.reason) == (300, "503, come back in 300 s")
        with closing(World(another)) as restarted:
            restarted.drive(restarted.dispatcher(receiver))
            assert receiver.seen == []


def test_the_gate_of_one_endpoint_is_not_that_of_another(world: World) -> None:
    close_gate(world)
    with world.database.reading() as session:
        assert Gate("http://elsewhere.test", world.database.now).condition(session).is_open


def test_failures_in_a_row_are_counted_and_forgotten_once_it_opens(world: World, clock: Clock) -> None:
    close_gate(world)
    receiver = Receiver(BUSY)
    dispatcher = world.dispatcher(receiver)
    for failures in (2, 3):
        clock.advance(GATE_WAIT)
        world.drive(dispatcher)
        assert world.gate_row().failures == failures
    receiver.otherwise = OK
    clock.advance(GATE_WAIT)
    world.drive(dispatcher)
    assert (world.gate_row().failures, world.gate_row().reason) == (0, None)


def test_a_redirect_or_a_refused_token_closes_the_gate_and_parks_nothing(world: World) -> None:
    media_id = close_gate(world, Answer(Verdict.CLOSE_GATE, "401", 401))
    assert world.stream(media_id).parked_at is None
    assert world.gate_row().reason == "401"
