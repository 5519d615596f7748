"""The circuit breaker: opens when the endpoint is unfit, probes one message at a time, closes at full speed."""

from contextlib import closing

import pytest

from app.database import Database
from app.database.models import MediaStatus
from app.outbox.circuit import CONSECUTIVE_THRESHOLD
from app.outbox.circuit_breaker import CircuitBreaker
from app.outbox.messages import Classification, Verdict
from tests.conftest import Clock
from tests.long import sqlite_first
from tests.outbox.world import (
    BUSY,
    CIRCUIT_WAIT,
    LEASE,
    LOST,
    OK,
    REFUSED,
    SERVER_ERROR,
    UNREACHABLE,
    Receiver,
    World,
    busy_for,
)

pytestmark = sqlite_first

PROCESSING = MediaStatus.AI_PROCESSING


def open_circuit(world: World, answer: Classification = BUSY) -> str:
    """Open the circuit by unfit answers to new media items; return the first, which is due next."""
    media_ids = [world.media() for _ in range(CONSECUTIVE_THRESHOLD)]
    world.drive(world.dispatcher(Receiver(answer)))
    assert not world.circuit.is_closed
    return media_ids[0]


def open_for(world: World) -> float:
    with world.database.read_transaction() as session:
        found = world.breaker.fetch(session)
        return found.endpoint.circuit.wait(found.now)


def test_nothing_is_sent_while_the_circuit_is_open(world: World, receiver: Receiver, clock: Clock) -> None:
    open_circuit(world)
    world.media()
    clock.advance(CIRCUIT_WAIT - 0.1)
    world.drive(world.dispatcher(receiver))
    assert receiver.seen == []


def test_one_probe_at_a_time_goes_through(world: World, clock: Clock) -> None:
    open_circuit(world)
    for _ in range(5):
        world.media()
    clock.advance(CIRCUIT_WAIT)
    slow = world.slow_receiver()
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    for _ in range(3):
        clock.advance(5)
        assert dispatcher.turn() > 0
    assert len(slow.arrived) == 1


def test_of_two_dispatchers_only_one_takes_the_probe(world: World, receiver: Receiver, clock: Clock) -> None:
    open_circuit(world)
    for _ in range(5):
        world.media()
    clock.advance(CIRCUIT_WAIT)
    slow = world.slow_receiver()
    world.dispatcher(slow).turn()
    slow.wait_for(1)
    world.drive(world.dispatcher(receiver))
    assert receiver.seen == []


def test_a_probe_that_is_answered_closes_the_circuit_at_full_speed(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    open_circuit(world)
    for _ in range(5):
        world.media(PROCESSING)
    clock.advance(CIRCUIT_WAIT)
    world.drive(world.dispatcher(receiver))
    assert world.circuit.is_closed
    assert len(receiver.arrived) == 10 + CONSECUTIVE_THRESHOLD


def test_any_answer_that_is_not_unfit_itself_closes_it(world: World, clock: Clock) -> None:
    for answer in (SERVER_ERROR, REFUSED, OK):
        open_circuit(world)
        clock.advance(CIRCUIT_WAIT)
        world.drive(world.dispatcher(Receiver(answer)))
        assert world.circuit.is_closed
        clock.advance(1000)
        world.drive(world.dispatcher(Receiver()))


def test_a_probe_without_an_answer_keeps_the_circuit_open(world: World, clock: Clock) -> None:
    open_circuit(world)
    clock.advance(CIRCUIT_WAIT)
    receiver = Receiver(LOST)
    world.drive(world.dispatcher(receiver))
    assert len(receiver.arrived) == 1
    assert not world.circuit.is_closed
    assert world.circuit_row().failures == 2


def test_a_failed_probe_makes_way_for_another_media(world: World, clock: Clock) -> None:
    open_circuit(world)
    clock.advance(CIRCUIT_WAIT)
    receiver = Receiver(BUSY)
    dispatcher = world.dispatcher(receiver)
    for _ in range(4):
        world.drive(dispatcher)
        clock.advance(CIRCUIT_WAIT)
    probed = [media_id for media_id, _seq in receiver.seen]
    assert len(set(probed)) == len(probed) == 4


def test_one_media_that_always_gets_no_answer_does_not_block_the_rest(world: World, clock: Clock) -> None:
    bad = open_circuit(world)
    good = world.media()
    receiver = Receiver()
    receiver.answer(bad, *[LOST] * 20)
    dispatcher = world.dispatcher(receiver)
    clock.advance(CIRCUIT_WAIT)
    world.drive(dispatcher)
    clock.advance(CIRCUIT_WAIT)
    world.drive(dispatcher)
    assert world.stream(good).acked_seq == 1
    assert world.circuit.is_closed


def test_attempts_are_not_counted_while_the_circuit_is_open(world: World, clock: Clock) -> None:
    for answer in (BUSY, UNREACHABLE, LOST):
        media_id = open_circuit(world)
        receiver = Receiver(answer)
        dispatcher = world.dispatcher(receiver)
        for _ in range(4):
            clock.advance(CIRCUIT_WAIT)
            world.drive(dispatcher)
        assert len(receiver.arrived) >= 4
        stream = world.stream(media_id)
        assert stream.failures == 0
        assert stream.counted_attempts == 0
        assert (stream.due_at or 0) <= clock.seconds + CIRCUIT_WAIT
        clock.advance(CIRCUIT_WAIT)
        world.drive(world.dispatcher(Receiver()))


def test_a_retry_after_longer_than_the_backoff_wins(world: World, clock: Clock) -> None:
    open_circuit(world, busy_for(500))
    assert open_for(world) == 500
    clock.advance(499)
    receiver = Receiver()
    world.drive(world.dispatcher(receiver))
    assert receiver.seen == []
    clock.advance(1)
    world.drive(world.dispatcher(receiver))
    assert len(receiver.seen) == CONSECUTIVE_THRESHOLD


def test_the_backoff_wins_over_a_shorter_retry_after(world: World) -> None:
    open_circuit(world, busy_for(CIRCUIT_WAIT / 2))
    assert open_for(world) == CIRCUIT_WAIT


@pytest.mark.parametrize(("asked", "waits"), [(300, 300), (50, 100)])
def test_of_what_was_under_way_a_longer_retry_after_extends_an_open_circuit_and_a_shorter_one_does_not(
    world: World, asked: float, waits: float
) -> None:
    slow = world.slow_receiver(busy_for(asked))
    world.media()
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    world.open_circuit(delay=100)
    slow.release.set()
    dispatcher.finish()
    assert open_for(world) == waits
    assert world.circuit_row().failures == 1


def test_a_failed_probe_does_not_shorten_a_retry_after_that_came_meanwhile(world: World, clock: Clock) -> None:
    late = world.slow_receiver(busy_for(400))
    world.media()
    slow_dispatcher = world.dispatcher(late)
    slow_dispatcher.turn()
    late.wait_for(1)
    open_circuit(world)
    world.media()
    clock.advance(CIRCUIT_WAIT)
    probe = world.slow_receiver(BUSY)
    prober = world.dispatcher(probe)
    prober.turn()
    probe.wait_for(1)
    late.release.set()
    world.drive(slow_dispatcher)
    assert open_for(world) == 400
    probe.release.set()
    world.drive(prober)
    assert open_for(world) == 400


def test_a_late_success_of_before_closes_the_circuit(world: World, clock: Clock) -> None:
    slow = world.slow_receiver()
    early = world.media(PROCESSING)
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    open_circuit(world)
    slow.release.set()
    world.drive(dispatcher)
    assert world.circuit.is_closed
    assert slow.of(early) == [1, 2]


def test_a_late_failure_of_before_waits_no_shorter_than_the_circuit(world: World, clock: Clock) -> None:
    slow = world.slow_receiver(BUSY)
    early = world.media()
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    open_circuit(world)
    clock.advance(CIRCUIT_WAIT * 3)
    slow.release.set()
    dispatcher.finish()
    # Its turn to be the probe comes after those that waited already.
    assert (world.stream(early).due_at or 0) > clock.seconds


def test_a_probe_that_dies_costs_its_lease_and_no_more(world: World, receiver: Receiver, clock: Clock) -> None:
    open_circuit(world)
    clock.advance(CIRCUIT_WAIT)
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
    assert world.circuit.is_closed
    assert world.stream(other).acked_seq == 1


def test_a_probe_that_lost_its_lease_says_nothing_of_the_circuit(world: World, clock: Clock) -> None:
    open_circuit(world)
    clock.advance(CIRCUIT_WAIT)
    frozen = world.slow_receiver(OK)
    late = world.dispatcher(frozen)
    late.turn()
    frozen.wait_for(1)
    clock.advance(LEASE)
    world.drive(world.dispatcher(Receiver(busy_for(700))))
    frozen.release.set()
    late.finish()
    assert open_for(world) == 700


def test_a_frozen_dispatcher_does_not_open_the_circuit_that_others_found_closed(
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
    assert world.circuit.is_closed


def test_a_probe_that_was_not_sent_lets_another_go_at_once(world: World, receiver: Receiver, clock: Clock) -> None:
    open_circuit(world)
    clock.advance(CIRCUIT_WAIT)
    ticks = [0.0]

    def jumping() -> float:
        ticks[0] += 100
        return ticks[0]

    late = world.dispatcher(receiver, monotonic=jumping)
    late.turn()
    late.finish()
    assert receiver.seen == []
    world.drive(world.dispatcher(receiver))
    assert len(receiver.seen) == CONSECUTIVE_THRESHOLD
    assert world.circuit.is_closed


def test_the_circuit_is_kept_across_restarts_and_seen_by_others(world: World, receiver: Receiver, clock: Clock) -> None:
    open_circuit(world, busy_for(300))
    url = world.database.url.render_as_string(hide_password=False)
    with closing(Database(url, now=clock.sql)) as another, closing(World(another)) as restarted:
        circuit = restarted.circuit
        assert circuit.wait(clock.seconds) == 300
        assert circuit.reason == "503, come back in 300 s"
        restarted.drive(restarted.dispatcher(receiver))
        assert receiver.seen == []


def test_the_circuit_of_one_endpoint_is_not_that_of_another(world: World) -> None:
    open_circuit(world)
    with world.database.read_transaction() as session:
        other = CircuitBreaker("http://elsewhere.test", world.database.now)
        assert other.fetch(session).endpoint.circuit.is_closed


def test_a_circuit_written_by_a_clock_a_day_ahead_is_probed_at_once(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    open_circuit(world)
    clock.advance(-86_400)
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    assert receiver.of(media_id) == [1]
    assert world.circuit.is_closed


def test_failures_in_a_row_are_counted_and_forgotten_once_it_closes(world: World, clock: Clock) -> None:
    open_circuit(world)
    receiver = Receiver(BUSY)
    dispatcher = world.dispatcher(receiver)
    for failures in (2, 3):
        clock.advance(CIRCUIT_WAIT)
        world.drive(dispatcher)
        assert world.circuit_row().failures == failures
    receiver.otherwise = OK
    clock.advance(CIRCUIT_WAIT)
    world.drive(dispatcher)
    assert world.circuit_row().failures == 0
    assert world.circuit_row().reason is None


def test_a_redirect_everywhere_opens_the_circuit_and_parks_nothing(world: World) -> None:
    media_id = open_circuit(world, Classification(Verdict.UNFIT, "302", 302))
    assert world.stream(media_id).parked_at is None
    assert world.circuit_row().reason == "302"
