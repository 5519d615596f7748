"""Flush: covers what is pending at its start, ignores backoff, and reports what is left."""

import threading
import time
from collections.abc import Callable

import pytest

from app.database.models import MediaStatus
from app.outbox.dispatcher import Dispatcher
from app.outbox.flush import Flush, FlushReport
from app.outbox.messages import Classification, Deliver, Message
from app.outbox.retry_policy import RetryPolicy, fixed
from tests.conftest import Clock
from tests.long import sqlite_first
from tests.outbox.test_admin import park
from tests.outbox.world import (
    BUSY,
    CONTRADICTED,
    GIVE_UP,
    HELD,
    LEASE,
    OK,
    SERVER_ERROR,
    UNREACHABLE,
    Receiver,
    World,
    busy_for,
    held_for,
)

pytestmark = [pytest.mark.slow, sqlite_first]

PROCESSING, PROCESSED = MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED
ENOUGH = 15.0
"""Seconds within which each flush here must have ended by itself."""


def flush(
    world: World,
    deliver: Deliver,
    *,
    wait: bool = False,
    timeout: float | None = None,
    media_id: str | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    monotonic: Callable[[], float] = time.monotonic,
) -> FlushReport:
    """Run a flush, which must end by itself."""
    began = time.monotonic()
    report = Flush(
        world.database,
        world.breaker,
        world.dispatcher(deliver),
        media_id=media_id,
        on_progress=on_progress,
        monotonic=monotonic,
    ).run(wait=wait, timeout=timeout or ENOUGH)
    assert timeout or time.monotonic() - began < ENOUGH, "the flush did not end by itself"
    return report


def hurried() -> float:
    """A monotonic clock that runs twenty times as fast."""
    return time.monotonic() * 20


def test_a_flush_delivers_all_that_waits(world: World, receiver: Receiver) -> None:
    media_ids = [world.media(PROCESSING, PROCESSED) for _ in range(5)]
    assert flush(world, receiver) == FlushReport(total=15, delivered=15, pending=0, parked=0, timed_out=False)
    assert all(receiver.of(media_id) == [1, 2, 3] for media_id in media_ids)


def test_a_flush_of_nothing_is_done_at_once(world: World, receiver: Receiver) -> None:
    assert flush(world, receiver, wait=True) == FlushReport(0, 0, 0, 0, timed_out=False)


def test_a_flush_heeds_no_backoff(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    receiver.answer(media_id, SERVER_ERROR)
    world.drive(world.dispatcher(receiver))
    assert flush(world, receiver).pending == 0
    assert receiver.of(media_id) == [1, 1]


def test_a_flush_heeds_no_open_circuit(world: World, receiver: Receiver) -> None:
    media_ids = [world.media(), world.media()]
    world.open_circuit(delay=3000)
    assert flush(world, receiver).pending == 0
    assert all(world.stream(media_id).acked_seq == 1 for media_id in media_ids)
    assert world.circuit.is_closed


def test_without_waiting_each_media_is_tried_once(world: World) -> None:
    receiver = Receiver(SERVER_ERROR)
    for _ in range(20):
        world.media(PROCESSING)
    report = flush(world, receiver)
    assert report == FlushReport(total=40, delivered=0, pending=40, parked=0, timed_out=False)
    assert len(receiver.arrived) == 20


def test_without_waiting_a_flush_ends_though_every_backoff_is_short(live_world: World) -> None:
    world = live_world
    receiver = _SlowTrouble()
    for _ in range(30):
        world.media()
    flush_ended = threading.Event()
    beside = world.dispatcher(receiver, workers=2, policy=_no_backoff())
    thread = threading.Thread(target=_turn_until, args=(beside, flush_ended))
    thread.start()
    try:
        report = flush(world, receiver)
    finally:
        flush_ended.set()
        thread.join()
    assert report.pending == 30


def _turn_until(dispatcher: Dispatcher, ended: threading.Event) -> None:
    while not ended.is_set():
        dispatcher.sleep(min(dispatcher.turn(), 0.02))
    dispatcher.finish()


def _no_backoff() -> RetryPolicy:
    return RetryPolicy(media_wait=fixed(0), circuit_wait=fixed(0), wait_within_claim=fixed(0))


class _SlowTrouble(Receiver):
    def __init__(self) -> None:
        super().__init__(SERVER_ERROR)

    def respond(self, _message: Message, answer: Classification) -> Classification:
        time.sleep(0.02)
        return answer


def test_without_waiting_an_open_circuit_ends_the_flush_after_one_probe(world: World) -> None:
    for _ in range(5):
        world.media()
    receiver = Receiver(UNREACHABLE)
    world.drive(world.dispatcher(receiver))
    receiver.arrived.clear()
    report = flush(world, receiver)
    assert report.delivered == 0
    assert report.pending == 5
    assert len({media_id for media_id, _seq in receiver.seen}) == 1


def test_waiting_goes_on_until_all_is_delivered(live_world: World) -> None:
    world = live_world
    stubborn, other = world.media(PROCESSING), world.media()
    receiver = Receiver()
    receiver.answer(stubborn, SERVER_ERROR, BUSY, OK)
    report = flush(world, receiver, wait=True, timeout=GIVE_UP * 20, monotonic=hurried)
    assert report == FlushReport(total=3, delivered=3, pending=0, parked=0, timed_out=False)
    assert receiver.of(stubborn) == [1, 1, 1, 2]
    assert world.stream(other).acked_seq == 1


def test_waiting_ends_at_the_timeout_with_what_is_still_pending(world: World) -> None:
    world.media(PROCESSING)
    done = world.media()
    receiver = Receiver(SERVER_ERROR)
    receiver.answer(done, OK)
    report = flush(world, receiver, wait=True, timeout=1.5)
    assert report == FlushReport(total=3, delivered=1, pending=2, parked=0, timed_out=True)


def test_what_is_parked_is_not_waited_for_and_not_called_delivered(world: World) -> None:
    before = park(world)
    refused = world.media(PROCESSING, PROCESSED)
    receiver = Receiver()
    receiver.answer(refused, OK, CONTRADICTED)
    report = flush(world, receiver, wait=True)
    assert report == FlushReport(total=3, delivered=1, pending=0, parked=2, timed_out=False)
    assert receiver.of(before) == []


def test_what_comes_in_meanwhile_does_not_keep_a_flush(world: World) -> None:
    class Feeding(Receiver):
        def respond(self, _message: Message, answer: Classification) -> Classification:
            if len(self.arrived) <= 40:
                world.media()
            return answer

    world.media()
    report = flush(world, Feeding(), wait=True)
    assert report.total == 1
    assert report.pending == 0


def test_what_is_added_behind_meanwhile_is_not_counted(world: World) -> None:
    media_id = world.media()

    class Adding(Receiver):
        def respond(self, message: Message, answer: Classification) -> Classification:
            if message.seq == 1:
                world.change(media_id, PROCESSING)
                return answer
            return SERVER_ERROR

    report = flush(world, Adding(), wait=True)
    assert report == FlushReport(total=1, delivered=1, pending=0, parked=0, timed_out=False)


def test_a_flush_probes_held_users_at_once(world: World, receiver: Receiver) -> None:
    media_ids = [world.media(user_id="ada"), world.media(user_id="ada")]
    world.drive(world.dispatcher(Receiver(held_for(3000))))
    assert world.holds.keys() == {"ada"}
    assert flush(world, receiver).pending == 0
    assert all(world.stream(media_id).acked_seq == 1 for media_id in media_ids)
    assert world.holds == {}


def test_without_waiting_a_held_user_ends_the_flush_after_one_probe_and_others_are_delivered(world: World) -> None:
    held = [world.media(user_id="ada") for _ in range(4)]
    receiver = Receiver()
    for media_id in held:
        receiver.answer(media_id, *[HELD] * 20)
    world.drive(world.dispatcher(receiver))
    receiver.arrived.clear()
    world.media(user_id="bob")
    report = flush(world, receiver)
    assert report.delivered == 1
    assert report.pending == 4
    assert len([one for one in receiver.arrived if one.user_id == "ada"]) == 1


def test_one_media_of_a_held_user_can_be_flushed_alone(world: World, receiver: Receiver) -> None:
    wanted = world.media(user_id="ada")
    world.drive(world.dispatcher(Receiver(held_for(3000))))
    assert flush(world, receiver, media_id=wanted).pending == 0


def test_one_media_can_be_flushed_alone(world: World, receiver: Receiver) -> None:
    parked = park(world)
    wanted, other = world.media(PROCESSING), world.media(PROCESSING)
    waiting_since = world.stream(other).due_at
    report = flush(world, receiver, wait=True, media_id=wanted)
    assert report == FlushReport(total=2, delivered=2, pending=0, parked=0, timed_out=False)
    assert receiver.seen == [(wanted, 1), (wanted, 2)]
    assert world.stream(other).due_at == waiting_since
    assert flush(world, receiver, media_id=parked).parked == 1


def test_one_media_can_be_flushed_through_an_open_circuit(world: World, receiver: Receiver) -> None:
    wanted = world.media()
    world.open_circuit(delay=3000)
    world.media()
    assert flush(world, receiver, media_id=wanted).pending == 0
    assert receiver.seen == [(wanted, 1)]


def test_a_flush_works_beside_a_running_dispatcher(live_world: World) -> None:
    world, receiver = live_world, Receiver()
    media_ids = [world.media(PROCESSING, PROCESSED) for _ in range(20)]
    ended = threading.Event()
    beside = world.dispatcher(receiver, workers=2)
    thread = threading.Thread(target=_turn_until, args=(beside, ended))
    thread.start()
    try:
        report = flush(world, receiver, wait=True)
    finally:
        ended.set()
        thread.join()
    assert report.pending == 0
    assert all(receiver.of(media_id) == [1, 2, 3] for media_id in media_ids)


def test_a_flush_waits_for_what_another_dispatcher_is_sending(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    slow = world.slow_receiver()
    beside = world.dispatcher(slow)
    beside.turn()
    slow.wait_for(1)
    reports: list[FlushReport] = []
    thread = threading.Thread(target=lambda: reports.append(flush(world, receiver)))
    thread.start()
    time.sleep(0.3)
    assert reports == []
    slow.release.set()
    world.drive(beside)
    thread.join()
    assert reports == [FlushReport(total=1, delivered=1, pending=0, parked=0, timed_out=False)]
    assert receiver.seen == []
    assert world.stream(media_id).acked_seq == 1


def test_a_flush_does_not_break_the_lease_of_another_dispatcher(world: World, receiver: Receiver) -> None:
    world.media()
    slow = world.slow_receiver()
    beside = world.dispatcher(slow)
    beside.turn()
    slow.wait_for(1)
    report = flush(world, receiver, wait=True, timeout=1.5)
    assert report.pending == 1
    assert report.timed_out is True
    assert receiver.seen == []


def test_a_lease_whose_owner_died_does_not_keep_a_flush_at_an_open_circuit(world: World, clock: Clock) -> None:
    dead = world.slow_receiver()
    world.media()
    world.dispatcher(dead).turn()
    dead.wait_for(1)
    world.media()
    world.open_circuit(delay=3000)
    clock.advance(LEASE + 1)
    receiver = Receiver(busy_for(3000))
    report = flush(world, receiver)
    assert report.pending == 2
    assert 1 <= len(receiver.arrived) <= 2


def test_a_flush_at_an_open_circuit_waits_until_the_lease_of_a_dead_owner_has_run_out_and_then_probes(
    world: World, clock: Clock
) -> None:
    dead = world.slow_receiver()
    world.media()
    world.dispatcher(dead).turn()
    dead.wait_for(1)
    world.media()
    world.open_circuit(delay=3000)
    timer = threading.Timer(0.5, clock.advance, (LEASE + 1,))
    timer.start()
    receiver = Receiver()
    report = flush(world, receiver)
    timer.join()
    assert report.delivered == 2
    assert report.pending == 0
    assert len(receiver.arrived) == 2


def test_waiting_at_an_open_circuit_sends_one_probe_at_a_time(live_world: World) -> None:
    world = live_world
    for _ in range(6):
        world.media()
    world.open_circuit(delay=3000)
    slow = world.slow_receiver(busy_for(3000))
    timer = threading.Timer(1, slow.release.set)
    timer.start()
    report = flush(world, slow, wait=True, timeout=0.8 * 20, monotonic=hurried)
    timer.join()
    assert report.timed_out
    assert slow.most_at_once == 1


def test_a_flush_that_is_interrupted_records_what_was_sent_and_lets_go(world: World) -> None:
    media_ids = [world.media(PROCESSING) for _ in range(3)]

    class Interrupted(Exception):
        pass

    def interrupt(done: int, _total: int) -> None:
        if done == 0:
            return
        raise Interrupted

    with pytest.raises(Interrupted):
        flush(world, Receiver(), wait=True, on_progress=interrupt)
    for media_id in media_ids:
        assert world.stream(media_id).lease_owner is None


def test_the_progress_ends_at_the_total(world: World, receiver: Receiver) -> None:
    world.media(PROCESSING)
    told: list[tuple[int, int]] = []
    flush(world, receiver, wait=True, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (2, 2)
    assert told == sorted(told)


def test_without_a_place_to_deliver_to_everything_stays_pending(world: World) -> None:
    world.media(PROCESSING)
    report = Flush(world.database, None, None).run(wait=True, timeout=None)
    assert report == FlushReport(total=2, delivered=0, pending=2, parked=0, timed_out=False)


def test_a_flush_of_what_is_contradicted_leaves_nothing_pending_but_parked(world: World) -> None:
    world.media()
    report = flush(world, Receiver(CONTRADICTED))
    assert report == FlushReport(total=1, delivered=0, pending=0, parked=1, timed_out=False)
