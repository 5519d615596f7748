"""Several processes on one outbox: woken by each other's commits, not blocking each other, fenced when frozen."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from app.database import Database, Topic
from app.database.models import MediaStatus, OutboxMessage
from app.database.postgres_connection import PATIENT
from app.outbox.admin import retry_parked
from app.outbox.dispatcher import Dispatcher
from app.outbox.watch import QUIET_SECONDS, ChangeWatcher
from tests import fork_server
from tests.eventually import eventually
from tests.outbox import other_process
from tests.outbox.test_admin import park
from tests.outbox.world import GIVE_UP, Receiver, World
from tests.paths import ROOT

pytestmark = pytest.mark.slow

SOON = 2.5
"""Far less than the time after which a dispatcher looks by itself."""


@contextmanager
def other(task: str, database: Database, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run another process that does `task`; it must succeed."""
    url = database.url.render_as_string(hide_password=False)
    with fork_server.Popen(
        [sys.executable, "-m", other_process.__name__, task, url, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
            assert process.wait(GIVE_UP) == 0
        finally:
            process.kill()


@contextmanager
def watching(database: Database, *, quiet_seconds: float = QUIET_SECONDS) -> Iterator[threading.Event]:
    """Yield an event that the watcher sets at each change after its first call."""
    changed = threading.Event()
    watcher = ChangeWatcher(database, changed.set, quiet_seconds=quiet_seconds)
    watcher.start()
    try:
        assert changed.wait(GIVE_UP)
        time.sleep(0.05)
        changed.clear()
        yield changed
    finally:
        watcher.stop()


def test_a_commit_of_another_process_is_noticed(live_world: World) -> None:
    media_id = live_world.media()
    with watching(live_world.database) as changed, other("enqueue", live_world.database, media_id):
        assert changed.wait(GIVE_UP)


def test_what_cuts_the_log_in_a_quiet_time_keeps_nobody_awake(sqlite_url: str) -> None:
    with ExitStack() as stack:
        databases = [stack.enter_context(closing(Database(sqlite_url))) for _process in range(2)]
        with closing(World(databases[0])) as world:
            world.media()
        watched = [stack.enter_context(watching(database, quiet_seconds=0.1)) for database in databases]
        time.sleep(1)  # each has cut the log, or seen it cut
        for changed in watched:
            changed.clear()
        assert not any(changed.wait(0.4) for changed in watched)


def test_a_commit_after_a_quiet_time_is_noticed_too(live_world: World) -> None:
    media_id = live_world.media()
    with watching(live_world.database, quiet_seconds=0.1) as changed:
        time.sleep(0.5)  # the watcher has become slow, and has cut SQLite's log
        changed.clear()
        with other("enqueue", live_world.database, media_id):
            assert changed.wait(GIVE_UP)


def test_sqlites_log_is_cut_to_nothing_once_nobody_has_committed_for_a_while(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database:
        log = Path(f"{database.url.database}-wal")
        with database.write_transaction() as session:
            session.execute(text("CREATE TABLE filler (bytes BLOB)"))
            session.execute(text("INSERT INTO filler VALUES (zeroblob(200000))"))
        assert log.stat().st_size > 200_000
        with watching(database, quiet_seconds=0.1):
            eventually(lambda: log.stat().st_size == 0, "the log to be cut")


def test_nothing_is_noticed_where_nothing_was_committed(live_world: World) -> None:
    with watching(live_world.database) as changed:
        with live_world.database.read_transaction() as session:
            session.scalar(select(func.count()).select_from(OutboxMessage))
        with live_world.database.write_transaction() as session:
            session.scalar(select(func.count()).select_from(OutboxMessage))
        assert not changed.wait(0.3)


def test_putting_back_what_was_parked_is_noticed(live_world: World) -> None:
    media_id = park(live_world)
    with watching(live_world.database) as changed:
        with live_world.database.write_transaction() as session:
            retry_parked(session, live_world.database.now, [media_id])
        assert changed.wait(SOON)


def test_a_watcher_survives_the_loss_of_its_connection(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database, closing(World(database)) as world:
        media_id = world.media()
        with watching(database) as changed:
            with database.write_transaction() as session:
                others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^LISTEN'"
                assert session.connection().exec_driver_sql(others).all() == [(True,)]
            assert changed.wait(GIVE_UP), "it listens again and says so, because it may have missed something"
            changed.clear()
            with other("enqueue", database, media_id):
                assert changed.wait(GIVE_UP)


def test_a_commit_here_is_delivered_without_waiting_for_the_next_poll(live_world: World) -> None:
    world, receiver = live_world, Receiver()
    with _running(world, receiver) as dispatcher:
        world.database.subscribe(Topic.MESSAGES, dispatcher.wake)
        media_id = world.media(MediaStatus.AI_PROCESSING)
        eventually(lambda: receiver.of(media_id) == [1, 2], seconds=SOON)


def test_a_commit_there_is_delivered_without_waiting_for_the_next_poll(live_world: World) -> None:
    world, receiver = live_world, Receiver()
    media_id = world.media()
    with _running(world, receiver) as dispatcher:
        eventually(lambda: world.stream(media_id).acked_seq == 1)
        watcher = ChangeWatcher(world.database, dispatcher.wake)
        watcher.start()
        try:
            with other("enqueue", world.database, media_id) as process:
                assert process.wait(GIVE_UP) == 0
                eventually(lambda: receiver.of(media_id) == [1, 2], seconds=SOON)
        finally:
            watcher.stop()


@contextmanager
def _running(world: World, receiver: Receiver) -> Iterator[Dispatcher]:
    dispatcher = world.dispatcher(receiver)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        dispatcher.stop()


def test_a_dispatcher_that_was_frozen_for_twice_its_lease_changes_nothing(live_world: World) -> None:
    world, receiver = live_world, Receiver()
    media_id = world.media(MediaStatus.AI_PROCESSING)
    with other("dispatch", world.database) as frozen:
        assert frozen.stdin
        assert frozen.stdout
        assert frozen.stdout.readline().strip() == media_id
        frozen.send_signal(signal.SIGSTOP)
        time.sleep(2 * other_process.LEASE)
        world.drive(world.dispatcher(receiver))
        before = _written(world, media_id)
        frozen.send_signal(signal.SIGCONT)
        frozen.stdin.write("\n")
        frozen.stdin.flush()
        assert frozen.wait(GIVE_UP) == 0
    assert [(message.seq, message.outcome_unknown) for message in receiver.arrived] == [(1, True), (2, False)]
    assert _written(world, media_id) == before
    assert world.stream(media_id).acked_seq == 2


def _written(world: World, media_id: str) -> tuple[object, ...]:
    stream = world.stream(media_id)
    ends = [(message.delivered_at, message.outcome) for message in world.messages(media_id)]
    return (stream.acked_seq, stream.lease_epoch, stream.due_at, ends, len(world.attempts(media_id)))


@pytest.mark.long
def test_processes_that_contend_for_one_database_all_get_their_turn(live_world: World) -> None:
    world = live_world
    shared = world.media()
    with other("contend", world.database, "a", "4", "25"), other("contend", world.database, "b", "4", "25"):
        pass
    assert [message.seq for message in world.messages(shared)] == list(range(1, 202))
    with world.database.read_transaction() as session:
        assert session.scalar(select(func.count()).select_from(OutboxMessage)) == 401


@pytest.fixture
def impatient(database_url: str) -> Iterator[World]:
    """An outbox whose database does not wait for locks."""
    with closing(Database(database_url, busy_seconds=0.2)) as database, closing(World(database)) as world:
        yield world


def test_a_database_error_while_results_are_recorded_loses_none(impatient: World) -> None:
    media_ids = [impatient.media(MediaStatus.AI_PROCESSING) for _ in range(5)]
    slow = impatient.slow_receiver()
    dispatcher = impatient.dispatcher(slow)
    dispatcher.start()
    try:
        slow.wait_for(5)
        with _locked(impatient.database):
            slow.release.set()
            time.sleep(0.8)
        eventually(lambda: all(impatient.stream(media_id).acked_seq == 2 for media_id in media_ids))
    finally:
        dispatcher.stop()
    assert all(slow.of(media_id) == [1, 2] for media_id in media_ids)


@contextmanager
def _locked(database: Database) -> Iterator[None]:
    """Hold the write lock within the block."""
    url = database.url.render_as_string(hide_password=False)
    with closing(Database(url, limits=PATIENT)) as another, another.write_transaction() as session:
        if not another.is_sqlite:
            session.connection().exec_driver_sql("LOCK TABLE outbox_stream IN ACCESS EXCLUSIVE MODE")
        session.scalar(select(func.count()).select_from(OutboxMessage))
        yield


def test_a_dispatcher_that_cannot_record_at_its_end_leaves_its_leases_to_expire(impatient: World) -> None:
    media_id = impatient.media()
    slow = impatient.slow_receiver()
    dispatcher = impatient.dispatcher(slow)
    dispatcher.turn()
    slow.wait_for(1)
    slow.release.set()
    with _locked(impatient.database):
        dispatcher.stop()
    stream = impatient.stream(media_id)
    assert stream.acked_seq == 0
    assert stream.lease_owner == dispatcher.owner


def test_stopping_lets_go_of_every_lease_and_records_what_was_sent(live_world: World) -> None:
    world = live_world
    media_ids = [world.media(MediaStatus.AI_PROCESSING) for _ in range(30)]
    slow = world.slow_receiver()
    dispatcher = world.dispatcher(slow, workers=2)
    dispatcher.start()
    slow.wait_for(2)
    stopping = threading.Thread(target=dispatcher.stop)
    stopping.start()
    time.sleep(0.1)
    slow.release.set()
    stopping.join(GIVE_UP)
    assert not stopping.is_alive()
    assert len(slow.arrived) == 2
    streams = [world.stream(media_id) for media_id in media_ids]
    assert [stream.lease_owner for stream in streams] == [None] * 30
    assert sum(stream.acked_seq for stream in streams) == 2
    assert all(stream.due_at is not None and not stream.outcome_unknown for stream in streams)
    receiver = Receiver()
    world.drive(world.dispatcher(receiver))
    assert len(receiver.arrived) == 58
