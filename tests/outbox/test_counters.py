"""Counters: added to with the results that they count, on both databases, by any dispatcher."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from app.database import Database, counters
from app.database.models import MediaStatus
from app.outbox.circuit import Circuit
from app.web.metrics.outbox import OutboxCollector
from tests.conftest import Clock
from tests.eventually import eventually
from tests.outbox.world import CONTRADICTED, GIVE_UP, MEDIA_WAIT, SERVER_ERROR, Receiver, World


def figures(world: World) -> dict[tuple[str, ...], float]:
    with world.database.read_transaction() as session:
        return counters.read(session)


def exposed(world: World) -> dict[tuple[str, tuple[str, ...]], float]:
    """The metrics of a scrape: a value for each name with its labels."""
    registry = CollectorRegistry()
    with world.database.read_transaction() as session:
        registry.register(OutboxCollector(session, world.database.now, world.breaker))
        exposition = generate_latest(registry).decode()
    samples = [sample for family in text_string_to_metric_families(exposition) for sample in family.samples]
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in samples}


def test_each_attempt_is_counted_by_kind_and_verdict(world: World, receiver: Receiver, clock: Clock) -> None:
    smooth, refused = world.media(MediaStatus.AI_PROCESSING), world.media()
    receiver.answer(smooth, SERVER_ERROR)
    receiver.answer(refused, CONTRADICTED)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    clock.advance(MEDIA_WAIT)
    world.drive(dispatcher)
    counted = {name[1:]: value for name, value in figures(world).items() if name[0] == counters.ATTEMPTS}
    assert counted == {
        ("create", "retry"): 1,
        ("create", "park"): 1,
        ("create", "delivered"): 1,
        ("status", "delivered"): 1,
    }


def test_the_time_from_commit_to_acknowledgement_falls_into_its_bucket(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    world.media()
    clock.advance(45)
    world.drive(world.dispatcher(receiver))
    shown = exposed(world)
    assert shown["detections_outbox_delivery_seconds_bucket", ("30.0",)] == 0
    assert shown["detections_outbox_delivery_seconds_bucket", ("60.0",)] == 1
    assert shown["detections_outbox_delivery_seconds_bucket", ("+Inf",)] == 1
    assert shown["detections_outbox_delivery_seconds_sum", ()] == 45


def test_what_waits_and_what_is_parked_is_shown(world: World, receiver: Receiver) -> None:
    receiver.answer(world.media(), CONTRADICTED)
    world.drive(world.dispatcher(receiver))
    world.media(MediaStatus.AI_PROCESSING)
    shown = exposed(world)
    assert shown["detections_outbox_parked_media", ()] == 1
    assert shown["detections_outbox_active_streams", ()] == 1
    assert shown["detections_outbox_pending_messages", ()] == 2


def test_an_outcome_that_comes_after_its_lease_has_gone_is_counted(world: World, clock: Clock) -> None:
    world.media()
    slow = world.slow_receiver()
    late = world.dispatcher(slow)
    late.turn()
    slow.wait_for(1)
    clock.advance(60)
    world.drive(world.dispatcher(Receiver()))
    slow.release.set()
    late.finish()
    assert figures(world)[(counters.LEASES_LOST,)] == 1


def test_a_rollback_takes_its_counts_with_it(world: World) -> None:
    class Broken(Exception):
        pass

    try:
        with world.database.write_transaction() as session:
            counters.add(session, {"attempts:create:delivered": 1})
            raise Broken
    except Broken:
        pass
    assert figures(world) == {}


def test_counting_from_several_threads_loses_nothing(database: Database) -> None:
    def count() -> None:
        for _ in range(20):
            with database.write_transaction() as session:
                counters.add(session, {"b": 1, "a": 2})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read_transaction() as session:
        assert counters.read(session) == {("a",): 160, ("b",): 80}


@given(st.lists(st.floats(min_value=-1, max_value=1e7, allow_nan=False)))
def test_every_latency_falls_into_one_bucket_that_holds_it(latencies: list[float]) -> None:
    counted = counters.of_latencies(latencies)
    in_buckets = {float(name.split(":")[1]): amount for name, amount in counted.items() if name != counters.LATENCY_SUM}
    assert sum(in_buckets.values()) == len(latencies)
    for bound in counters.LATENCY_BUCKETS:
        held = sum(amount for upper, amount in in_buckets.items() if upper <= bound)
        assert held == sum(latency <= bound for latency in latencies)


def test_whoever_counts_while_it_holds_the_circuit_is_not_waited_for_by_one_who_has_counted(postgres_url: str) -> None:
    """One dispatcher decides about a probe's answer; another one records a message and then wants to decide too."""
    with closing(Database(postgres_url)) as database, closing(World(database)) as world, ThreadPoolExecutor(1) as other:
        slow = world.slow_receiver(SERVER_ERROR)
        dispatcher = world.dispatcher(slow)
        world.media()
        dispatcher.turn()
        slow.wait_for(1)
        with database.write_transaction() as session:
            found = world.breaker.lock(session)
            opened = replace(found.endpoint, circuit=Circuit().opened(found.now, 0, "503"))
            world.breaker.save(session, found.endpoint, opened)
        slow.release.set()
        dispatcher.sleep(GIVE_UP)  # until the answer is there
        with database.write_transaction() as session:
            world.breaker.lock(session)
            turn = other.submit(dispatcher.turn)
            eventually(lambda: waiting_for_locks(database) == 1, "the other to want the circuit")
            counters.add(session, {"attempts:create:retry": 1.0})
        turn.result(GIVE_UP)
        with database.read_transaction() as session:
            assert counters.read(session)["attempts", "create", "retry"] == 2


def test_whoever_counted_and_stands_still_keeps_nobody_from_counting(postgres_url: str) -> None:
    with closing(Database(postgres_url, busy_seconds=0.1)) as database:
        with database.write_transaction() as session:
            counters.add(session, {"a": 1, "b": 1})
        with database.write_transaction() as still:
            counters.add(still, {"a": 10, "new": 10})
            for _ in range(3):
                with database.write_transaction() as session:
                    counters.add(session, {"a": 100, "b": 100, "new": 100})
        with database.read_transaction() as session:
            assert counters.read(session) == {("a",): 311, ("b",): 301, ("new",): 310}
            rows = session.execute(text("SELECT count(*) FROM counter_shard")).scalar_one()
            assert rows <= 5, "who counts at another time uses the rows that are there"


def waiting_for_locks(database: Database) -> int:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with database.read_transaction() as session:
        return int(session.execute(waiting).scalar_one())
