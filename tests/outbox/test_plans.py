"""Query plans of the frequent statements: none reads many rows that it then discards.

With 8,000 streams that wait for later and 12,000 delivered messages; PLAN_WAITING=400000 PLAN_KEPT=3000000 is the full
form.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import IntegrityError

from app.database import Database
from app.database.models import MediaStatus
from app.database.postgres_connection import PATIENT
from app.outbox import admin, listing
from app.outbox.counts import OutboxCounts, outbox_status
from app.outbox.decide import Action, Transition
from app.outbox.messages import Attempt
from app.outbox.queue import OutboxQueue
from app.outbox.transitions import apply_transitions
from benchmarks.backlog import fill_beside
from tests.conftest import Clock
from tests.outbox.statements import add_backlog
from tests.outbox.world import OK, REFUSED, SERVER_ERROR, Receiver, World

WAITING, KEPT = int(os.environ.get("PLAN_WAITING", "8000")), int(os.environ.get("PLAN_KEPT", "12000"))
FEW_ROWS = 50
"""Rows that may be read and thrown away: of tables that are small by their nature, a scan is the best plan."""


class Statements:
    """Every statement sent to a database, once, with its last parameters."""

    def __init__(self, database: Database) -> None:
        self.seen: dict[str, Any] = {}
        for engine in {database.reader, database.writer}:
            event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        self.seen[statement] = parameters[-1] if isinstance(parameters, list) else parameters


def work_through(world: World) -> None:
    """Do everything that a running service and its observers do with the outbox."""
    receiver, counts = Receiver(), OutboxCounts(world.database)
    dispatcher = world.dispatcher(receiver)
    media_ids = [world.media(MediaStatus.AI_PROCESSING) for _ in range(6)]
    receiver.answer(media_ids[0], SERVER_ERROR)
    receiver.answer(media_ids[1], REFUSED)
    world.drive(dispatcher)
    for _ in range(3):
        with world.database.read_transaction() as session:
            outbox_status(session, world.database.now, counts)
    with world.database.read_transaction() as session:
        listing.throughput(session, world.database.now)
        for state in listing.STATES:
            first = listing.page(session, state=state, limit=5, cursor=None)
            listing.page(session, state=state, limit=5, cursor=first.next_cursor)
        listing.history(session, media_ids[0])
    with world.database.write_transaction() as session:
        admin.prune(session, world.database.now, older_than_days=6.99, batch=50)


@pytest.fixture
def beside(database_url: str) -> Iterator[World]:
    with closing(Database(database_url, limits=PATIENT)) as database, closing(World(database)) as world:
        fill_beside(database, waiting=WAITING, kept=KEPT)
        yield world


@pytest.mark.timeout(1200)
def test_no_statement_reads_what_it_throws_away(beside: World) -> None:
    statements = Statements(beside.database)
    work_through(beside)
    wasteful = _wasteful_on_sqlite if beside.database.is_sqlite else _wasteful_on_postgres
    explained = {
        statement: parameters
        for statement, parameters in statements.seen.items()
        if statement.lstrip().split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
    }
    assert len(explained) > 20
    found = {statement: wasteful(beside.database, statement, values) for statement, values in explained.items()}
    counted_whole = [statement for statement in found if _counts_everything(statement)]
    assert {statement: plan for statement, plan in found.items() if plan and statement not in counted_whole} == {}


def _counts_everything(statement: str) -> bool:
    """Whether the statement is the background count of all waiting streams."""
    return statement.startswith("SELECT count(*)") and "LIMIT" not in statement


def _wasteful_on_postgres(database: Database, statement: str, parameters: Any) -> list[str]:
    with database.writer.connect() as connection:
        try:
            plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
        except IntegrityError:  # a new row, which is there by now
            connection.rollback()
            plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
        connection.rollback()
    return list(_wasteful_nodes(plan[0]["Plan"]))


def _wasteful_nodes(node: dict[str, Any]) -> Iterator[str]:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    kept = node.get("Actual Rows", 0)
    if removed > max(kept, FEW_ROWS):
        yield f"{node['Node Type']} on {node.get('Relation Name')}: {removed} rows removed by {node.get('Filter')}"
    if node["Node Type"] == "Seq Scan" and kept > 10 * FEW_ROWS:
        yield f"all of {node.get('Relation Name')} is read"
    for child in node.get("Plans", []):
        yield from _wasteful_nodes(child)


def _wasteful_on_sqlite(database: Database, statement: str, parameters: Any) -> list[str]:
    large = ("media", "outbox_stream", "outbox_message")
    with closing(database.reader.raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        details = [row[-1] for row in cursor.fetchall()]
    return [detail for detail in details if detail in [f"SCAN {table}" for table in large]]


def test_a_comparison_with_the_clock_bounds_the_scan_of_an_index(beside: World) -> None:
    if beside.database.is_sqlite:
        pytest.skip("SQLite takes its clock for a constant by itself")
    with beside.database.read_transaction() as session:
        volatile = "SELECT media_id FROM outbox_stream WHERE due_at <= extract(epoch from clock_timestamp())"
        plan = session.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {volatile}")).scalar_one()
    assert list(_wasteful_nodes(plan[0]["Plan"])) != [], "what this test is to find is found"


@pytest.mark.long
def test_what_a_long_snapshot_keeps_in_an_index_is_not_passed_over_by_each_claim(
    postgres_url: str, clock: Clock
) -> None:
    """A long report or backup keeps PostgreSQL from removing entries of delivered messages."""
    gone = 3000
    with (
        closing(Database(postgres_url, now=clock.sql)) as database,
        closing(World(database)) as world,
        psycopg.connect(make_url(postgres_url).set(drivername="postgresql").render_as_string()) as report,
    ):
        report.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        report.execute("SELECT count(*) FROM outbox_stream")
        add_backlog(database, gone, due_at=clock.seconds)
        with database.write_transaction() as session:
            session.execute(text("UPDATE outbox_stream SET due_at = NULL, acked_seq = last_seq, waiting_since = NULL"))
        clock.advance(60)
        world.media()
        statements = Statements(database)
        world.drive(world.dispatcher(Receiver()))
        looks = [one for one in statements.seen if "due_at" in one and one.startswith(("WITH due", "SELECT min"))]
        assert len(looks) == 2
        pages = [_pages(database, one, statements.seen[one]) for one in looks]
    assert max(pages) <= 10  # without a bound: 50


@pytest.mark.parametrize("action", [Action.DELIVERED, Action.RETRY])
def test_an_outcome_costs_sqlite_as_much_among_a_hundred_as_among_ten(
    sqlite_url: str, clock: Clock, action: Action
) -> None:
    with closing(Database(sqlite_url, now=clock.sql)) as database:
        add_backlog(database, 110, due_at=clock.seconds)
        few, many = (_steps_for_each_outcome(database, action, count) for count in (10, 100))
    assert many < 1.5 * few  # where each looks through all the others: 5 times as many


def _steps_for_each_outcome(database: Database, action: Action, count: int) -> float:
    """How many steps SQLite's virtual machine takes to record one outcome of `count`."""
    queue, attempt, steps = OutboxQueue(database.now), Attempt(OK, 0.0, 0.0), itertools.count()
    with database.write_transaction() as transaction:
        claims = queue.claim(transaction, "tests", count, 30.0)
        assert len(claims) == count
        driver: Any = transaction.core.connection.driver_connection
        driver.set_progress_handler(lambda: next(steps) < 0, 1)
        apply_transitions(transaction, queue, [Transition(action, claim, attempt) for claim in claims], 30.0)
        driver.set_progress_handler(None, 0)
    return next(steps) / count


def _pages(database: Database, statement: str, parameters: Any) -> int:
    with database.writer.connect() as connection:
        explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
        [found] = connection.exec_driver_sql(explained, parameters).scalar_one()
        connection.rollback()
    return int(found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"])
