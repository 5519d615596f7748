"""Statements that go past SQLAlchemy: what they store, find and refuse is what its own would have."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Integer, bindparam, event, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from app.db import Database
from app.direct import Direct
from app.ingest import Upload
from app.models import Media, OutboxMessage, OutboxStream
from app.outbox.messages import Kind
from tests.intake import open_intake, picture

MEDIA = {
    "id": "a" * 16,
    "name": "été 🛩.jpg",
    "path": "/images/a.jpg",
    "media_type": "Image",
    "media_status": 1,
    "user_id": "ada",
    "size_bytes": 2**40,
    "checksum": None,
    "created_at": 1_800_000_000,
}
STREAM = {
    "media_id": MEDIA["id"],
    "user_id": "ada",
    "last_seq": 1,
    "acked_seq": 0,
    "due_at": 5,
    "lease_epoch": 0,
    "attempts": 0,
    "failures": 0,
    "counted_attempts": 0,
    "uncertain": True,
    "head_since": 5.5,
}
MESSAGE = {
    "media_id": MEDIA["id"],
    "seq": 1,
    "kind": Kind.CREATE,
    "payload": {"name": 'a "name" ü', "size": 1},
    "idempotency_key": "key",
    "user_id": "ada",
    "request_id": None,
    "created_at": 7,
}
ADD_MEDIA, ADD_STREAM, ADD_MESSAGE = (
    Direct(insert(table), row) for table, row in ((Media, MEDIA), (OutboxStream, STREAM), (OutboxMessage, MESSAGE))
)
FIND = Direct(select(Media.name, Media.size_bytes).where(Media.id == bindparam("wanted")))


def add_all(database: Database) -> None:
    with database.writing() as session:
        for statement, row in ((ADD_MEDIA, MEDIA), (ADD_STREAM, STREAM), (ADD_MESSAGE, MESSAGE)):
            statement.insert(session.connection(), [row])


def test_what_was_inserted_reads_back_as_it_was_given_whatever_its_type(database: Database) -> None:
    add_all(database)
    with database.reading() as session:
        media = session.scalars(select(Media)).one()
        stream = session.scalars(select(OutboxStream)).one()
        message = session.scalars(select(OutboxMessage)).one()
        assert {name: getattr(media, name) for name in MEDIA} == MEDIA
        assert {name: getattr(stream, name) for name in STREAM} == STREAM
        assert {name: getattr(message, name) for name in MESSAGE} == MESSAGE


def test_a_row_is_found_inside_a_transaction_and_by_a_look_of_its_own(database: Database) -> None:
    add_all(database)
    expected = (MEDIA["name"], MEDIA["size_bytes"])
    with database.reading() as session:
        assert tuple(FIND.first(session.connection(), {"wanted": MEDIA["id"]}) or ()) == expected
    assert tuple(database.look_up(FIND, {"wanted": MEDIA["id"]}) or ()) == expected


def test_nothing_is_found_where_nothing_is(database: Database) -> None:
    assert database.look_up(FIND, {"wanted": "b" * 16}) is None


def test_a_value_that_stands_in_the_statement_needs_not_be_given(database: Database) -> None:
    add_all(database)
    adas = Direct(select(Media.id).where(Media.user_id == "ada", Media.id == bindparam("wanted")))
    graces = Direct(select(Media.id).where(Media.user_id == "grace", Media.id == bindparam("wanted")))
    assert database.look_up(adas, {"wanted": MEDIA["id"]}) is not None
    assert database.look_up(graces, {"wanted": MEDIA["id"]}) is None


def test_a_value_that_a_function_gives_is_asked_for_at_each_look(database: Database) -> None:
    numbers = iter((4, 7))
    counting = Direct(select(bindparam("number", callable_=lambda: next(numbers), type_=Integer()) + 1))
    assert [tuple(database.look_up(counting, {}) or ()) for _ in range(2)] == [(5,), (8,)]


def test_a_taken_key_is_sqlalchemys_integrity_error(database: Database) -> None:
    add_all(database)
    with pytest.raises(IntegrityError), database.writing() as session:
        ADD_MEDIA.insert(session.connection(), [MEDIA])


def test_a_row_against_the_schemas_rules_is_refused_with_those_beside_it(database: Database) -> None:
    other = MEDIA | {"id": "b" * 16, "path": "/images/b.jpg"}
    with pytest.raises(IntegrityError), database.writing() as session:
        ADD_MEDIA.insert(session.connection(), [other, MEDIA | {"media_status": 9}])
    assert database.look_up(FIND, {"wanted": other["id"]}) is None


def test_a_transaction_that_fails_later_keeps_nothing_of_it(database: Database) -> None:
    def insert_and_fail() -> None:
        with database.writing() as session:
            ADD_MEDIA.insert(session.connection(), [MEDIA])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        insert_and_fail()
    assert database.look_up(FIND, {"wanted": MEDIA["id"]}) is None


def test_a_missing_table_is_sqlalchemys_error_too(database: Database) -> None:
    with database.writing() as session:
        session.execute(text("ALTER TABLE media RENAME TO media_elsewhere"))
    try:
        with pytest.raises(DBAPIError):
            database.look_up(FIND, {"wanted": MEDIA["id"]})
    finally:
        with database.writing() as session:
            session.execute(text("ALTER TABLE media_elsewhere RENAME TO media"))


def test_a_locked_database_is_sqlalchemys_operational_error(sqlite_url: str) -> None:
    with (
        closing(Database(sqlite_url, busy_seconds=0.1)) as database,
        closing(Database(sqlite_url)) as other,
        other.writing() as theirs,
    ):
        theirs.execute(text("PRAGMA user_version = 1"))
        with pytest.raises(OperationalError), database.engine.connect() as ours:
            ADD_MEDIA.insert(ours, [MEDIA])


@pytest.fixture
def traced(sqlite_url: str) -> Iterator[tuple[Database, list[str]]]:
    """A database, and every statement that SQLite itself ran for it."""
    ran: list[str] = []
    with closing(Database(sqlite_url)) as database:

        def trace(connection: sqlite3.Connection, _entry: Any) -> None:
            connection.set_trace_callback(ran.append)

        event.listen(database.engine.pool, "connect", trace)
        event.listen(database.writer.pool, "connect", trace)
        yield database, ran


def test_a_new_file_costs_sqlite_four_statements_in_one_transaction(
    traced: tuple[Database, list[str]], tmp_path: Path
) -> None:
    database, ran = traced
    intake = open_intake(tmp_path / "media", database)
    intake.ingest.run(Upload("first.jpg", "ada", [picture("first")]))
    ran.clear()
    intake.ingest.run(Upload("second.jpg", "ada", [picture("second")]))
    assert ran[0] == "BEGIN IMMEDIATE"
    assert [words.split()[0] for words in ran[1:]] == ["SELECT", "INSERT", "INSERT", "INSERT", "COMMIT"]
