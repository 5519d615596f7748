"""The cost of a filtered list, which does not depend on how rare its items are."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import product
from typing import Any

import pytest
from sqlalchemy import event, insert, text

from app.database import Database
from app.database.models import Media
from app.queries import media_items
from tests.conftest import lent_database

pytestmark = pytest.mark.slow

COUNT = 20_000
AT_ONCE = 1000
FILTERS = [pair for pair in product((None, 1, 6), (None, "Video", "Image")) if pair != (None, None)]


@pytest.fixture(scope="module")
def media() -> list[dict[str, Any]]:
    """Add pictures with the status New, and as the oldest ones a picture and a video with the status Error."""
    rows = [
        {
            "id": f"{number:016x}",
            "name": "photo.jpg",
            "path": f"/images/{number}.jpg",
            "media_type": "Image",
            "media_status": 1,
            "user_id": "ada",
            "size_bytes": 1,
            "created_at": float(number),
        }
        for number in range(COUNT)
    ]
    rows[0] |= {"media_status": 6}
    rows[1] |= {"media_status": 6, "media_type": "Video"}
    return rows


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, media: list[dict[str, Any]]
) -> Iterator[Database]:
    """A filled database for tests that only read, on each kind of database."""
    with (
        lent_database(request, request.param, tmp_path_factory.mktemp("lists")) as url,
        closing(Database(url)) as filled,
    ):
        with filled.write_transaction() as session:
            session.execute(insert(Media), media)
        with filled.write_transaction() as session:
            session.execute(text("ANALYZE"))
        yield filled


@contextmanager
def plans(database: Database) -> Iterator[list[str]]:
    """Return the query plan of each statement that is run."""
    found: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "

    def look(_connection: object, cursor: Any, statement: str, parameters: object, *_: object) -> None:
        cursor.execute(explain + statement, parameters)
        found.extend(str(row[-1]) for row in cursor.fetchall())

    event.listen(database.reader, "before_cursor_execute", look)
    yield found
    event.remove(database.reader, "before_cursor_execute", look)


@pytest.mark.parametrize(("status", "media_type"), FILTERS)
def test_a_filtered_list_is_read_by_an_index_and_never_the_table(
    status: int | None, media_type: str | None, filled: Database
) -> None:
    with plans(filled) as found, filled.read_transaction() as session:
        page = media_items.page(session, status=status, media_type=media_type, limit=50, cursor=None)
    assert found
    whole = [line for line in found if "SCAN media" in line or "Seq Scan on media" in line]
    assert whole == [], "\n".join(found)
    if filled.is_sqlite or status == 6 or media_type == "Video":  # for common values PostgreSQL may walk the newest
        assert any("ix_media_filtered" in line for line in found), "\n".join(found)
    kept = [item.media for item in page.items]
    assert all(status in (None, item.media_status) and media_type in (None, item.media_type) for item in kept)


def steps(database: Database, **filters: Any) -> int:
    """Return the steps of SQLite's virtual machine for a page, in hundreds."""
    taken = [0]

    def count() -> int:
        taken[0] += 1
        return 0

    def follow(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(count, 100)

    event.listen(database.reader.pool, "checkout", follow)
    with database.read_transaction() as session:
        media_items.page(session, **({"status": None, "media_type": None, "limit": 50, "cursor": None} | filters))
    event.remove(database.reader.pool, "checkout", follow)
    return taken[0]


@pytest.mark.parametrize("filled", ["sqlite"], indirect=True, scope="module")  # PostgreSQL does not count its steps
@pytest.mark.parametrize("filters", [{"status": 6}, {"media_type": "Video"}, {"status": 6, "media_type": "Video"}])
def test_a_rare_value_costs_no_more_than_the_list_without_a_filter(filters: dict[str, Any], filled: Database) -> None:
    assert steps(filled, **filters) <= steps(filled)


@pytest.mark.parametrize(("status", "media_type"), FILTERS)
def test_the_pages_of_a_filtered_list_have_each_item_once_newest_first(
    status: int | None, media_type: str | None, database: Database, media: list[dict[str, Any]]
) -> None:
    few = [row | {"media_status": (1, 2, 3, 6)[number % 4], "media_type": ("Image", "Video")[number % 3 == 0]}
           for number, row in enumerate(media[:60])]  # fmt: skip
    with database.write_transaction() as session:
        session.execute(insert(Media), few)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        with database.read_transaction() as session:
            page = media_items.page(session, status=status, media_type=media_type, limit=7, cursor=cursor)
        seen += [item.media.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    expected = [
        row["id"]
        for row in reversed(few)
        if status in (None, row["media_status"]) and media_type in (None, row["media_type"])
    ]
    assert seen == expected
