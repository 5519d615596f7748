"""The limit of waiting runs, and the cost of checking it and of claiming the next run."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import event, insert, text

from app.database import Database
from app.database.models import DetectionRun, Media, MediaStatus, OutboxStream
from app.errors import Unavailable
from app.runs.claims import Claimant, Claims
from app.runs.queue_limit import QueueLimit
from tests.outbox.statements import Counter
from tests.runs.conftest import World

pytestmark = pytest.mark.slow

CLAIMANT = Claimant("owner", "detector-1", 15.0)

AT_ONCE = 1000


def fill(database: Database, user: str, waiting: int, ended: int = 0) -> None:
    """Add runs of a user, each of another media item."""
    prefix = user.encode().hex()[:8].ljust(8, "0")
    media = [
        {
            "id": f"{prefix}{number:08x}",
            "name": "photo.jpg",
            "path": f"/images/{user}-{number}.jpg",
            "media_type": "Image",
            "media_status": MediaStatus.NEW,
            "user_id": user,
            "size_bytes": 1,
            "created_at": 1.0,
        }
        for number in range(waiting + ended)
    ]
    done = {"state": "done", "claimed_at": 2.0, "started_at": 2.0, "finished_at": 3.0}
    runs = [
        {
            "media_id": row["id"],
            "user_id": user,
            "detector": "detector-1",
            "confidence": 0.45,
            "frame_interval": 0.5,
            "created_at": 1.0,
        }
        | (done if number < ended else {"state": "queued", "claimed_at": None, "started_at": None, "finished_at": None})
        for number, row in enumerate(media)
    ]
    streams = [
        {
            "media_id": row["id"], "user_id": user, "last_seq": 0, "acked_seq": 0, "lease_epoch": 0, "attempts": 0,
            "failures": 0, "counted_attempts": 0, "outcome_unknown": False,
        }
        for row in media
    ]  # fmt: skip
    with database.write_transaction() as session:
        for table, rows in ((Media, media), (DetectionRun, runs), (OutboxStream, streams)):
            for first in range(0, len(rows), AT_ONCE):  # an exchange with the server may not take longer than its limit
                session.execute(insert(table), rows[first : first + AT_ONCE])


@contextmanager
def steps_of_sqlite(database: Database) -> Iterator[list[int]]:
    """Count the steps of SQLite's virtual machine in write transactions, in hundreds; independent of any clock."""
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    def follow(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(count, 100)

    event.listen(database.writer.pool, "checkout", follow)
    yield steps
    event.remove(database.writer.pool, "checkout", follow)


def claim_steps(database: Database) -> int:
    claims = Claims(database.now)
    with steps_of_sqlite(database) as steps, database.write_transaction() as session:
        assert claims.lease(session, CLAIMANT) is not None
        return steps[0]


@pytest.mark.long
def test_a_claim_takes_as_many_steps_beside_ten_thousand_waiting_runs_as_beside_ten(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database:
        fill(database, "ada", 10)
        fill(database, "bob", 10)
        few = claim_steps(database)
        fill(database, "cleo", 10_000, ended=10_000)
        fill(database, "dan", 1, ended=10_000)
        assert claim_steps(database) <= few + 10  # two more users


@pytest.mark.long
def test_postgresql_finds_the_next_run_by_its_indexes(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database:
        fill(database, "ada", 5_000, ended=5_000)
        fill(database, "bob", 1)
        with database.write_transaction() as session:
            session.execute(text("ANALYZE"))
        plans: list[str] = []

        @event.listens_for(database.writer, "before_cursor_execute", retval=True)
        def _explain(_connection: object, cursor: object, statement: str, parameters: object, *_: object) -> object:
            if statement.startswith(("UPDATE detection_run", "WITH")) and not plans:
                cursor.execute("EXPLAIN " + statement, parameters)  # type: ignore[attr-defined]
                plans.extend(row[0] for row in cursor.fetchall())  # type: ignore[attr-defined]
            return statement, parameters

        with database.write_transaction() as session:
            assert Claims(database.now).lease(session, CLAIMANT) is not None
        assert plans
        assert not [line for line in plans if re.search("Seq Scan on detection_run", line)], "\n".join(plans)


def test_where_one_user_fills_the_queue_another_is_let_in(world: World) -> None:
    room = QueueLimit(world.database, 10)
    fill(world.database, "ada", 10)
    with pytest.raises(Unavailable, match="10 of them yours"):
        room.ensure("ada")
    for _ in range(5):
        room.ensure("bob")
    fill(world.database, "bob", 5)
    with pytest.raises(Unavailable):
        room.ensure("bob")
    room.ensure("cleo")


def test_the_runs_are_counted_once_a_second_and_before_each_refusal(sqlite_url: str) -> None:
    now = [100.0]
    with closing(Database(sqlite_url)) as database:
        fill(database, "ada", 1)
        room = QueueLimit(database, 4, monotonic=lambda: now[0])
        with Counter(database) as counter:
            for _ in range(3):
                room.ensure("ada")
            assert counter.count == 1
            room.ensure("ada")  # four by what was let in, one by what came of it: counted anew
            assert counter.count == 2
            now[0] += 1.0
            room.ensure("ada")
            assert counter.count == 3
