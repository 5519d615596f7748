"""Counts for frequent callers: their cost does not depend on the backlog, and they are right within their age."""

from contextlib import closing

import pytest
from sqlalchemy import text

from app.database import Database
from app.outbox.counts import EXACT_LIMIT, FRESH_SECONDS, STALE_SECONDS, OutboxCounts, OutboxStatus, outbox_status
from tests.conftest import Clock
from tests.eventually import eventually
from tests.outbox.statements import LATER, Counter, add_backlog
from tests.outbox.world import Receiver, World


class Age:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def told(database: Database, counts: OutboxCounts) -> OutboxStatus:
    with database.read_transaction() as session:
        return outbox_status(session, database.now, counts)


def test_a_few_are_counted_whenever_somebody_asks(world: World, receiver: Receiver, clock: Clock) -> None:
    counts = OutboxCounts(world.database)
    for number in range(1, 4):
        world.media()
        clock.advance(1)
        found = told(world.database, counts)
        assert found.pending == number
        assert found.active == number
        assert found.oldest_age == number
        assert found.delivered_last_hour == 0
    world.drive(world.dispatcher(receiver))
    found = told(world.database, counts)
    assert found.pending == 0
    assert found.active == 0
    assert found.oldest_age is None
    assert found.delivered_last_hour == 3


@pytest.mark.long
def test_a_large_count_is_returned_from_the_cache_and_renewed_meanwhile(database: Database) -> None:
    age, more = Age(), EXACT_LIMIT + 10
    counts = OutboxCounts(database, monotonic=age)
    add_backlog(database, more, due_at=LATER)
    assert told(database, counts).pending == more
    with database.write_transaction() as session:
        session.execute(text("UPDATE outbox_stream SET last_seq = last_seq + 1"))
    assert told(database, counts).pending == more, "it is as good as new"
    age.seconds += FRESH_SECONDS + 1
    assert told(database, counts).pending == more, "nobody waits for the count"
    eventually(lambda: told(database, counts).pending == 2 * more)
    with database.write_transaction() as session:
        session.execute(text("UPDATE outbox_stream SET last_seq = last_seq + 1"))
    age.seconds += STALE_SECONDS + 1
    assert told(database, counts).pending == 3 * more, "what is too old is not told"


def test_nothing_is_read_but_a_part_while_the_last_count_is_good(database: Database) -> None:
    counts = OutboxCounts(database, monotonic=Age())
    add_backlog(database, EXACT_LIMIT + 10, due_at=LATER)
    told(database, counts)
    with Counter(database) as counter:
        told(database, counts)
    limited = [parameters for statement, parameters in counter.statements if "LIMIT" in statement]
    assert len(limited) == 3
    assert counter.count == 3 + 1, "three counts, and the clock"


def test_without_a_place_to_keep_counts_everything_is_counted_now(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database:
        add_backlog(database, EXACT_LIMIT + 10, due_at=LATER)
        with database.read_transaction() as session:
            assert outbox_status(session, database.now).pending == EXACT_LIMIT + 10
