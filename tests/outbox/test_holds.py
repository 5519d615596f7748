"""Holds: a refused user is suspended, however many messages wait, without delaying other users."""

import pytest

from app.database.models import MediaStatus
from app.outbox.circuit import CONSECUTIVE_THRESHOLD
from app.outbox.messages import Classification, Message
from tests.conftest import Clock
from tests.outbox.statements import Counter, add_backlog
from tests.outbox.world import BUSY, CIRCUIT_WAIT, HELD, HOLD_WAIT, LEASE, OK, Receiver, World, held_for

PROCESSING = MediaStatus.AI_PROCESSING


class Gateway:
    """Refuses some users and accepts all others."""

    def __init__(self, *refused: str, answer: Classification = HELD) -> None:
        self.refused = set(refused)
        self.answer = answer
        self.arrived: list[Message] = []

    def of(self, user_id: str) -> int:
        return sum(message.user_id == user_id for message in self.arrived)

    def __call__(self, message: Message) -> Classification:
        self.arrived.append(message)
        return self.answer if message.user_id in self.refused else OK


def test_a_refused_user_waits_and_the_others_do_not(world: World) -> None:
    theirs = [world.media(PROCESSING, user_id="ada") for _ in range(5)]
    others = [world.media(PROCESSING, user_id=f"user-{number}") for number in range(5)]
    gateway = Gateway("ada")
    world.drive(world.dispatcher(gateway, workers=1))
    assert all(world.stream(media_id).acked_seq == 2 for media_id in others)
    assert all(world.stream(media_id).acked_seq == 0 for media_id in theirs)
    assert gateway.of("ada") == 1
    assert world.circuit.is_closed
    assert world.holds["ada"].reason == "403"


def test_one_message_of_a_held_user_probes_at_a_time_and_nothing_of_it_is_counted(world: World, clock: Clock) -> None:
    theirs = [world.media(user_id="ada") for _ in range(4)]
    gateway = Gateway("ada")
    dispatcher = world.dispatcher(gateway, workers=1)
    world.drive(dispatcher)
    for probes in range(1, 6):
        assert gateway.of("ada") == probes
        clock.advance(HOLD_WAIT - 0.1)
        world.drive(dispatcher)
        assert gateway.of("ada") == probes
        clock.advance(0.1)
        world.drive(dispatcher)
    hold = world.holds["ada"]
    assert hold.failures == 6
    assert hold.since == clock.seconds - 5 * HOLD_WAIT
    for media_id in theirs:
        stream = world.stream(media_id)
        assert stream.failures == 0
        assert stream.counted_attempts == 0
        assert stream.parked_at is None


def test_a_probe_that_is_accepted_lets_all_of_the_user_s_go_at_full_speed(world: World, clock: Clock) -> None:
    theirs = [world.media(PROCESSING, user_id="ada") for _ in range(20)]
    gateway = Gateway("ada")
    dispatcher = world.dispatcher(gateway)
    world.drive(dispatcher)
    gateway.refused.clear()
    clock.advance(HOLD_WAIT)
    world.drive(dispatcher)
    assert world.holds == {}
    assert all(world.stream(media_id).acked_seq == 2 for media_id in theirs)


def test_a_hold_lasts_as_long_as_retry_after_says(world: World, clock: Clock) -> None:
    world.media(user_id="ada")
    gateway = Gateway("ada", answer=held_for(30))
    dispatcher = world.dispatcher(gateway)
    world.drive(dispatcher)
    clock.advance(29)
    world.drive(dispatcher)
    assert gateway.of("ada") == 1
    gateway.refused.clear()
    clock.advance(1)
    world.drive(dispatcher)
    assert gateway.of("ada") == 2
    assert world.holds == {}


def test_of_two_dispatchers_only_one_probes_and_one_that_dies_costs_its_lease(world: World, clock: Clock) -> None:
    for _ in range(4):
        world.media(user_id="ada")
    world.drive(world.dispatcher(Gateway("ada"), workers=1))
    clock.advance(HOLD_WAIT)
    dead = world.slow_receiver()
    world.dispatcher(dead).turn()
    dead.wait_for(1)
    second = Gateway()
    dispatcher = world.dispatcher(second)
    world.drive(dispatcher)
    assert second.arrived == []
    clock.advance(LEASE)
    world.drive(dispatcher)
    assert len(second.arrived) == 4
    assert world.holds == {}


def test_a_hold_is_kept_across_restarts_and_seen_by_others(world: World) -> None:
    world.media(user_id="ada")
    world.drive(world.dispatcher(Gateway("ada")))
    other = Gateway()
    world.drive(world.dispatcher(other))
    assert other.arrived == []


def test_a_hold_written_by_a_clock_a_day_ahead_is_probed_at_once(world: World, clock: Clock) -> None:
    world.media(user_id="ada")
    world.drive(world.dispatcher(Gateway("ada")))
    clock.advance(-86_400)
    world.media(user_id="ada")
    gateway = Gateway()
    world.drive(world.dispatcher(gateway))
    assert gateway.of("ada") >= 1
    assert world.holds == {}


def test_a_hold_on_a_user_of_whom_nothing_waits_any_more_is_dropped(world: World, clock: Clock) -> None:
    media_id = world.media(user_id="ada")
    gateway = Gateway("ada")
    dispatcher = world.dispatcher(gateway)
    world.drive(dispatcher)
    world.set_stream(media_id, due_at=None, parked_at=1.0)
    clock.advance(HOLD_WAIT)
    world.media(user_id="bob")
    world.drive(dispatcher)
    assert world.holds == {}


def test_users_take_turns_while_somebody_is_held(world: World) -> None:
    world.media(user_id="held")
    world.drive(world.dispatcher(Gateway("held")))
    for number in range(30):
        world.media(user_id=f"user-{number:02}")
    gateway = Gateway("held")
    world.drive(world.dispatcher(gateway))
    assert sorted(message.user_id for message in gateway.arrived) == sorted(f"user-{number:02}" for number in range(30))


def test_while_the_circuit_is_open_a_held_user_is_not_probed_beside_its_probe(world: World, clock: Clock) -> None:
    world.media(user_id="ada")
    world.drive(world.dispatcher(Gateway("ada")))
    world.open_circuit(delay=2 * HOLD_WAIT)
    clock.advance(HOLD_WAIT)
    receiver = Receiver(BUSY)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    assert receiver.arrived == []
    clock.advance(HOLD_WAIT)
    world.drive(dispatcher)
    assert len(receiver.arrived) == 1
    assert world.holds.keys() == {"ada"}


def test_a_user_who_is_refused_with_one_token_for_all_is_an_unfit_endpoint(world: World) -> None:
    """The client classifies such an answer as UNFIT; five of them open the circuit."""
    for number in range(CONSECUTIVE_THRESHOLD):
        world.media(user_id=f"user-{number}")
    world.drive(world.dispatcher(Receiver(BUSY)))
    assert not world.circuit.is_closed
    assert world.circuit.wait(world.circuit.opened_at or 0) == CIRCUIT_WAIT


@pytest.mark.parametrize("waiting", [10, 3000])
def test_the_cost_of_a_turn_beside_a_held_user_does_not_grow_with_what_waits_of_theirs(
    world: World, clock: Clock, waiting: int
) -> None:
    world.media(user_id="held")
    world.drive(world.dispatcher(Gateway("held", answer=held_for(3000))))
    add_backlog(world.database, waiting, due_at=clock.seconds - 100, user_id="held")
    world.media(user_id="bob")
    gateway = Gateway("held")
    with Counter(world.database) as counter:
        world.drive(world.dispatcher(gateway, workers=1))
    assert [message.user_id for message in gateway.arrived] == ["bob"]
    assert counter.count <= 60
    for statement, values in counter.statements:
        if (
            waiting > 1000
            and "outbox_stream" in statement
            and statement.lstrip().upper().startswith(("SELECT", "WITH"))
        ):
            _assert_no_scan(world, statement, values)


def _assert_no_scan(world: World, statement: str, values: object) -> None:
    explain = "EXPLAIN QUERY PLAN" if world.database.is_sqlite else "EXPLAIN"
    with world.database.write_transaction() as session:
        rows = session.connection().exec_driver_sql(f"{explain} {statement}", values)  # type: ignore[arg-type]
        plan = [str(row[-1]).strip() for row in rows]
    assert not [line for line in plan if line == "SCAN outbox_stream" or "Seq Scan on outbox_stream" in line], plan
