"""Enqueuing: a message is part of the transaction that it reports, and numbered in commit order."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import psycopg
import pytest

from app.database import Database, Topic
from app.database.models import Media, MediaStatus
from app.database.postgres_backend import PG_CHANNEL
from app.errors import IllegalTransition
from app.media.status import NewMedia, change_status, create_all
from app.outbox.messages import MessageKind
from tests.conftest import Clock
from tests.outbox.statements import Counter, add_backlog
from tests.outbox.world import CONTRADICTED, GIVE_UP, OK, SERVER_ERROR, Receiver, World

PROCESSING, PROCESSED = MediaStatus.AI_PROCESSING, MediaStatus.AI_PROCESSED


class _Failed(Exception):
    pass


def test_numbers_have_no_gap_and_follow_the_order_of_commits(live_world: World) -> None:
    world = live_world
    media_ids = [world.media() for _ in range(3)]
    committed: dict[str, list[int]] = {media_id: [] for media_id in media_ids}
    lock = threading.Lock()

    def enqueue(number: int) -> None:
        media_id = media_ids[number % 3]
        with suppress(_Failed), world.database.write_transaction() as session:
            seq = world.queue.enqueue(
                session, media_id, MessageKind.STATUS, {"mediaStatus": 2}, user_id="u", request_id=str(number)
            )
            if number % 7 == 0:
                raise _Failed
            # Whoever comes later waits for this transaction, so what is noted now is the order of commits.
            with lock:
                committed[media_id].append(seq)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(enqueue, range(90)))
    for media_id in media_ids:
        stored = [message.seq for message in world.messages(media_id)]
        assert stored == list(range(1, len(stored) + 1))
        assert committed[media_id] == stored[1:]
        assert world.stream(media_id).last_seq == len(stored)


def test_a_rollback_takes_its_message_with_it(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    with pytest.raises(_Failed):
        _change_and_fail(world, media_id)
    world.drive(world.dispatcher(receiver))
    assert receiver.seen == [(media_id, 1)]
    assert world.stream(media_id).last_seq == 1
    with world.database.read_transaction() as session:
        assert session.get_one(Media, media_id).media_status == MediaStatus.NEW


def _change_and_fail(world: World, media_id: str) -> None:
    with world.database.write_transaction() as connection:
        change_status(connection, world.queue, media_id, PROCESSING, request_id=None)
        raise _Failed


def test_a_transition_that_is_not_allowed_leaves_no_message(world: World) -> None:
    media_id = world.media()
    with pytest.raises(IllegalTransition):
        world.change(media_id, PROCESSED)
    assert [message.seq for message in world.messages(media_id)] == [1]


def test_a_message_carries_the_status_and_the_owner_of_its_media(world: World, receiver: Receiver) -> None:
    media_id = world.media(PROCESSING, user_id="ada")
    world.drive(world.dispatcher(receiver))
    create, status = receiver.arrived
    assert create.kind is MessageKind.CREATE
    assert create.payload["mediaStatus"] == 1
    assert create.payload["id"] == media_id
    assert status.kind is MessageKind.STATUS
    assert status.payload == {"mediaStatus": 2}
    assert {create.user_id, status.user_id} == {"ada"}
    assert create.request_id == "request-1"


def test_every_message_has_a_key_of_its_own_and_keeps_it_at_every_try(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    media_id = world.media(PROCESSING)
    receiver.answer(media_id, SERVER_ERROR, OK)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    clock.advance(60)
    world.drive(dispatcher)
    first, again, second = [message.idempotency_key for message in receiver.arrived]
    assert first == again
    assert second != first


def test_enqueuing_does_not_shorten_a_backoff(world: World, receiver: Receiver, clock: Clock) -> None:
    media_id = world.media()
    receiver.answer(media_id, SERVER_ERROR)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    due_at = world.stream(media_id).due_at
    clock.advance(1)
    world.change(media_id, PROCESSING)
    world.drive(dispatcher)
    assert world.stream(media_id).due_at == due_at
    assert receiver.seen == [(media_id, 1)]


def test_enqueuing_does_not_break_a_lease(world: World, clock: Clock) -> None:
    media_id = world.media()
    slow, other = world.slow_receiver(), Receiver()
    dispatcher = world.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    before = world.stream(media_id)
    clock.advance(1)
    world.change(media_id, PROCESSING)
    world.drive(world.dispatcher(other))
    after = world.stream(media_id)
    assert other.seen == []
    assert after.due_at == before.due_at
    assert after.lease_owner == before.lease_owner
    assert after.lease_epoch == before.lease_epoch
    slow.release.set()
    world.drive(dispatcher)
    assert slow.seen == [(media_id, 1), (media_id, 2)]


def test_enqueuing_does_not_wake_a_parked_media(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    receiver.answer(media_id, CONTRADICTED)
    dispatcher = world.dispatcher(receiver)
    world.drive(dispatcher)
    world.change(media_id, PROCESSING)
    world.drive(dispatcher)
    assert world.stream(media_id).due_at is None
    assert receiver.seen == [(media_id, 1)]


def test_a_media_that_waits_for_nothing_is_due_at_once_when_a_message_comes(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    media_id = world.media()
    world.drive(world.dispatcher(receiver))
    assert world.stream(media_id).due_at is None
    clock.advance(5)
    world.change(media_id, PROCESSING)
    stream = world.stream(media_id)
    assert stream.due_at == clock.seconds
    assert stream.waiting_since == clock.seconds


def test_enqueuing_costs_the_same_few_statements_whatever_waits_already(world: World, clock: Clock) -> None:
    one = _statements_of(world, 1, world.media())
    add_backlog(world.database, 2000, due_at=clock.seconds)
    another = _statements_of(world, 1, world.media())
    assert one == another == (2 if world.database.is_sqlite else 1)


def test_a_new_media_and_its_message_are_one_statement_to_postgresql(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database, closing(World(database)) as world:
        media = Media(
            id="f" * 16,
            name="photo.jpg",
            path="/images/f.jpg",
            media_type="Image",
            user_id="ada",
            size_bytes=1,
            created_at=5.0,
        )
        with database.write_transaction() as connection, Counter(database) as counter:
            create_all(connection, world.queue, [NewMedia(media, "request-1")], 7.0)
        assert counter.count == 1
        stream = world.stream(media.id)
        assert stream.last_seq == 1
        assert stream.acked_seq == 0
        assert stream.due_at == 7.0
        assert stream.waiting_since == 7.0


def _statements_of(world: World, messages: int, media_id: str) -> int:
    with world.database.write_transaction() as connection:
        with Counter(world.database) as counter:
            for _ in range(messages):
                world.queue.enqueue(
                    connection, media_id, MessageKind.STATUS, {"mediaStatus": 2}, user_id="u", request_id=None
                )
        return counter.count


def test_a_transaction_notifies_others_once_however_many_messages_it_adds(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database, closing(World(database)) as world:
        media_id = world.media()
        with psycopg.connect(_for_psycopg(database), autocommit=True) as listening:
            listening.execute(f"LISTEN {PG_CHANNEL}".encode())
            _statements_of(world, 3, media_id)
            heard = list(listening.notifies(timeout=GIVE_UP, stop_after=1))
            heard += listening.notifies(timeout=0)
    assert len(heard) == 1


def test_a_process_that_adds_a_message_tells_its_own_dispatcher_once(world: World) -> None:
    told: list[int] = []
    media_id = world.media()
    world.database.subscribe(Topic.MESSAGES, lambda: told.append(1))
    _statements_of(world, 2, media_id)
    assert told == [1]


def _for_psycopg(database: Database) -> str:
    return database.url.set(drivername="postgresql").render_as_string(hide_password=False)


def test_two_messages_of_one_transaction_arrive_in_their_order(world: World, receiver: Receiver) -> None:
    media_id = world.media()
    with world.database.write_transaction() as connection:
        change_status(connection, world.queue, media_id, PROCESSING, request_id=None)
        change_status(connection, world.queue, media_id, PROCESSED, request_id=None)
    world.drive(world.dispatcher(receiver))
    assert [message.payload["mediaStatus"] for message in receiver.arrived] == [1, 2, 3]
