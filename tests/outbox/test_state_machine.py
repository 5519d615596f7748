"""Random histories: no message is lost or out of order, and the invariants hold at every step.

Hypothesis generates the histories: media items and statuses, turns of two dispatchers, all fates of requests, crashes
with leases held, late writers, time, and administration. After each step the invariants are checked; at the end every
message that is not parked must have arrived.

The quick form runs here. For the full form:

    OUTBOX_MACHINE_EXAMPLES=1000 OUTBOX_MACHINE_STEPS=50 python -m pytest tests/outbox/test_state_machine.py --timeout=0
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from shutil import copy
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import insert, text

from app.database import Database
from app.database.models import Base, DetectionRun, Media, MediaStatus, RunState
from app.errors import MediaNotFound, Unavailable
from app.media.status import ALLOWED_FROM
from app.outbox import admin
from app.outbox.dispatcher import Dispatcher
from app.outbox.invariants import broken_invariants
from app.outbox.messages import Classification, Message, Outcome
from tests.conftest import Clock
from tests.eventually import eventually
from tests.outbox.strict_receiver import Fate, StrictReceiver
from tests.outbox.world import LEASE, MEDIA_WAIT, OK, World, commits_that_seem_to_fail

pytestmark = pytest.mark.slow

MOST_MEDIA = 3
USERS = 2
ROUNDS_TO_DRAIN = 120

which_media = st.integers(min_value=0, max_value=MOST_MEDIA - 1)
fates = st.lists(st.sampled_from(Fate), max_size=4)


class OutboxMachine(RuleBasedStateMachine):
    """One history. `fresh_database` returns an empty, migrated database with the given clock."""

    fresh_database: ClassVar[Callable[[Clock], Database]]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.database = type(self).fresh_database(self.clock)
        self.world = World(self.database)
        self.receiver = StrictReceiver()
        self.dispatchers = [self._dispatcher() for _ in range(2)]
        self.dead: list[Dispatcher] = []
        self.media: list[str] = []
        self.enqueued: dict[str, int] = {}

    def teardown(self) -> None:
        try:
            self._drain()
        finally:
            self.world.close()
            self.database.close()

    def _dispatcher(self) -> Dispatcher:
        return self.world.dispatcher(self.receiver, workers=1)

    @precondition(lambda self: len(self.media) < MOST_MEDIA)
    @rule()
    def create_a_media(self) -> None:
        media_id = self.world.media(user_id=f"user-{len(self.media) % USERS}")
        with self.database.write_transaction() as session:
            run = {"detector": "d", "confidence": 0.5, "frame_interval": 0.5, "created_at": 1.0, "lease_until": 1.0}
            session.execute(insert(DetectionRun).values(media_id=media_id, user_id="u", state=RunState.RUNNING, **run))
        self.media.append(media_id)
        self.enqueued[media_id] = 1

    @precondition(lambda self: self.media)
    @rule(which=which_media, changes=st.integers(min_value=1, max_value=3), done=st.booleans())
    def change_its_status(self, which: int, changes: int, done: bool) -> None:
        media_id = self._chosen(which)
        for _ in range(changes):
            with self.database.read_transaction() as session:
                now = MediaStatus(session.get_one(Media, media_id).media_status)
            if now in ALLOWED_FROM[MediaStatus.AI_PROCESSING]:
                wanted = MediaStatus.AI_PROCESSING
            else:
                wanted = MediaStatus.AI_PROCESSED if done else MediaStatus.ERROR
            due_at, parked_at, *before = self._timing(media_id)
            self.world.change(media_id, wanted)
            self.enqueued[media_id] += 1
            if due_at or parked_at:  # else nothing was waiting
                assert self._timing(media_id) == (due_at, parked_at, *before)

    @rule(which=st.integers(min_value=0, max_value=1), fates=fates)
    def let_a_dispatcher_work(self, which: int, fates: list[Fate]) -> None:
        self._work(self.dispatchers[which], fates)

    @rule(fate=st.sampled_from(Fate))
    def the_same_happens_six_times(self, fate: Fate) -> None:
        for _ in range(6):
            self._work(self.dispatchers[0], [fate] * MOST_MEDIA)
            self.clock.advance(MEDIA_WAIT + 1)

    @precondition(lambda self: self.media)
    @rule(which=which_media, fate=st.sampled_from(Fate))
    def a_commit_is_done_though_it_seems_to_fail(self, which: int, fate: Fate) -> None:
        self.change_its_status(which, changes=2, done=True)
        dispatcher = self.dispatchers[0]
        self.receiver.fates.append(fate)
        dispatcher.turn(self._chosen(which))
        with commits_that_seem_to_fail(self.database), suppress(Unavailable):
            for _ in range(10):
                pause = dispatcher.turn(self._chosen(which))
                dispatcher.sleep(min(pause, 0.005))
        self.receiver.fates.clear()
        self.clock.advance(LEASE + 1)
        self._work(dispatcher, [])

    @precondition(lambda self: self.media)
    @rule(which=which_media, fate=st.sampled_from(Fate), outlived=st.booleans())
    def a_dispatcher_dies_after_its_send(self, which: int, fate: Fate, outlived: bool) -> None:
        sent: list[Message] = []

        def deliver(message: Message) -> Classification:
            try:
                return replace(self.receiver(message), unsent=False)
            finally:
                sent.append(message)

        dying = self.world.dispatcher(deliver, workers=1)
        self.receiver.fates.append(fate)
        dying.turn(self._chosen(which))
        if self.world.leased_to(dying):
            eventually(lambda: bool(sent), "the last send of the dispatcher that dies")
        self.receiver.fates.clear()
        self.dead.append(dying)
        self.clock.advance(LEASE + 1 if outlived else 0)

    @precondition(lambda self: self.media)
    @rule(which=which_media)
    def a_dispatcher_dies_before_its_send(self, which: int) -> None:
        ticks = count(step=100)

        def deliver(message: Message) -> Classification:
            self.receiver.violations.append(f"{message.media_id} {message.seq}: sent though its lease was too short")
            return OK

        dying = self.world.dispatcher(deliver, workers=1, monotonic=lambda: float(next(ticks)))
        dying.turn(self._chosen(which))
        self.dead.append(dying)

    @precondition(lambda self: self.dead)
    @rule(which=st.integers(min_value=0, max_value=5))
    def one_thought_dead_wakes_and_records(self, which: int) -> None:
        dead = self.dead.pop(which % len(self.dead))
        before = None if self.world.leased_to(dead) else self._everything()
        dead.finish()
        if before:
            assert self._everything() == before

    @rule(which=st.integers(min_value=0, max_value=1))
    def a_dispatcher_is_restarted(self, which: int) -> None:
        self.dispatchers[which].finish()
        assert not self.world.leased_to(self.dispatchers[which])
        self.dispatchers[which] = self._dispatcher()

    @rule(seconds=st.sampled_from([0.1, 2.0, 11.0, LEASE + 1, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def a_person_retries_all(self) -> None:
        with self.database.write_transaction() as session:
            admin.retry_parked(session, self.database.now, None)

    @precondition(lambda self: self.media)
    @rule(which=which_media)
    def a_person_skips(self, which: int) -> None:
        media_id = self._chosen(which)
        try:
            with self.database.write_transaction() as session:
                seq = admin.skip_head(session, self.database.now, media_id)
        except MediaNotFound:
            assert self.world.stream(media_id).parked_at is None
        else:
            self.receiver.expect_no(media_id, seq)

    @rule(batch=st.integers(min_value=1, max_value=5))
    def old_ones_are_pruned(self, batch: int) -> None:
        with self.database.write_transaction() as session:
            admin.prune(session, self.database.now, older_than_days=0, batch=batch)

    @invariant()
    def the_receiver_has_nothing_to_object_to(self) -> None:
        assert self.receiver.violations == []

    @invariant()
    def the_rows_agree_with_each_other(self) -> None:
        with self.database.read_transaction() as session:
            assert broken_invariants(session) == []

    @invariant()
    def every_message_has_its_number(self) -> None:
        assert {stream.media_id: stream.last_seq for stream in self.world.streams()} == self.enqueued

    @invariant()
    def nothing_counts_as_delivered_that_did_not_arrive(self) -> None:
        for media_id in self.media:
            for message in self.world.messages(media_id):
                if message.outcome not in (None, Outcome.SKIPPED):
                    assert self.receiver.has(media_id, message.seq)

    @invariant()
    def only_what_was_refused_is_parked(self) -> None:
        for stream in self.world.streams():
            if stream.parked_at is not None:
                assert self.receiver.deserves_parking(stream.media_id, stream.acked_seq + 1)

    @invariant()
    def no_attempt_is_counted_twice(self) -> None:
        for media_id in self.media:
            assert len(self.world.attempts(media_id)) <= self.receiver.requests[media_id]

    def _work(self, dispatcher: Dispatcher, fates: list[Fate]) -> None:
        """Run turns while time stands still; leased, parked, held and backing-off streams must not change."""
        circuit, holds = self.world.circuit, self.world.holds
        suspended = circuit.wait(self.clock.seconds) > 0
        held = {user for user, hold in holds.items() if hold.until > self.clock.seconds}
        before = self.receiver.requests.total()
        resting = {
            stream.media_id: self.receiver.requests[stream.media_id]
            for stream in self.world.streams()
            if suspended or stream.user_id in held or stream.due_at is None or stream.due_at > self.clock.seconds
        }
        self.receiver.fates.extend(fates)
        self.world.drive(dispatcher)
        self.receiver.fates.clear()
        assert {media_id: self.receiver.requests[media_id] for media_id in resting} == resting
        if not circuit.is_closed and fates == [Fate.BUSY] * MOST_MEDIA:
            assert self.receiver.requests.total() <= before + 1, "one probe at a time"

    def _timing(self, media_id: str) -> tuple[object, ...]:
        stream = self.world.stream(media_id)
        return (stream.due_at, stream.parked_at, stream.lease_owner, stream.lease_epoch)

    def _chosen(self, which: int) -> str:
        return self.media[which % len(self.media)]

    def _everything(self) -> list[object]:
        """Return everything that a late writer must not change."""
        streams = [self.world.values(media_id) for media_id in self.media]
        attempts = [len(self.world.attempts(media_id)) for media_id in self.media]
        return [self.world.circuit, self.world.holds, streams, attempts]

    def _drain(self) -> None:
        for _ in range(ROUNDS_TO_DRAIN):
            self.world.drive(self.dispatchers[0])
            if all(stream.due_at is None for stream in self.world.streams()):
                break
            self.clock.advance(LEASE + 1)
        drained = self._everything()
        for dead in self.dead:
            dead.finish()
        assert self._everything() == drained
        for stream in self.world.streams():
            assert stream.parked_at or stream.acked_seq == stream.last_seq
        self.the_receiver_has_nothing_to_object_to()
        self.the_rows_agree_with_each_other()
        self.nothing_counts_as_delivered_that_did_not_arrive()


def _run(fresh_database: Callable[[Clock], Database], *, examples: int) -> None:
    class Machine(OutboxMachine):
        pass

    Machine.fresh_database = fresh_database
    wanted = os.environ.get("OUTBOX_MACHINE_EXAMPLES")
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=int(wanted or examples),
            stateful_step_count=int(os.environ.get("OUTBOX_MACHINE_STEPS", "30")),
            derandomize=wanted is None,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(600)
def test_no_history_breaks_the_outbox_on_sqlite(sqlite_template: Path, tmp_path: Path) -> None:
    numbers = count()

    def fresh(clock: Clock) -> Database:
        path = copy(sqlite_template, tmp_path / f"{next(numbers)}.db")
        return Database(f"sqlite:///{path}", now=clock.sql)

    _run(fresh, examples=6)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_history_breaks_the_outbox_on_postgresql(postgres_url: str) -> None:
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)

    def fresh(clock: Clock) -> Database:
        database = Database(postgres_url, now=clock.sql)
        with database.write_transaction() as session:
            session.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
        return database

    _run(fresh, examples=5)
