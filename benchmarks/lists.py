"""What lists and claims cost beside what is there, all in one run: python -m benchmarks.lists [--media 1000000]

lists   a page of 50 media by each filter, where one picture and one video of a million are at Error
claims  the claim of a run where one user has 100,000 waiting, against ten
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from app.database import Database
from app.queries import media_items
from app.runs.claims import Claimant, Claims
from benchmarks.places import Places, places

KINDS = ("sqlite", "postgresql")
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"status": 3},
    {"status": 6},
    {"media_type": "Image"},
    {"media_type": "Video"},
    {"status": 6, "media_type": "Video"},
)
ROUNDS = 50
Row = tuple[str, str, str]

_NUMBERS = {
    True: "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) ",
    False: "WITH n AS (SELECT generate_series(1, :count) AS i) ",
}
_ID = {True: "printf('%016x', i)", False: "lpad(to_hex(i), 16, '0')"}
_MEDIA = """
INSERT INTO media (id, name, path, media_type, media_status, user_id, size_bytes, created_at)
{numbers} SELECT {id}, 'photo.jpg', '/srv/images/' || {id} || '.jpg', CASE WHEN i = 2 THEN 'Video' ELSE 'Image' END,
    CASE WHEN i <= 2 THEN 6 ELSE 3 END, 'ada', 1, i FROM n
"""
_STREAMS = """
INSERT INTO outbox_stream (media_id, user_id, last_seq, acked_seq, lease_epoch, attempts, failures, counted_attempts,
    outcome_unknown)
{numbers} SELECT {id}, 'ada', 0, 0, 0, 0, 0, 0, {false} FROM n
"""
_RUNS = """
INSERT INTO detection_run (media_id, user_id, detector, confidence, frame_interval, state, attempts, lease_epoch,
    results_epoch, frames_done, boxes_done, packets_skipped, created_at)
{numbers} SELECT {id}, 'ada', 'detector', 0.45, 0.5, 'queued', 0, 0, 0, 0, 0, 0, 1 FROM n
"""


def fill(database: Database, count: int, *statements: str) -> None:
    """Run these INSERTs for so many numbers."""
    sqlite = database.is_sqlite
    words = {"numbers": _NUMBERS[sqlite], "id": _ID[sqlite], "false": "0" if sqlite else "false"}
    with database.writer.begin() as connection:
        if not sqlite:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        for statement in statements:
            connection.execute(text(statement.format(**words)), {"count": count})
    with database.reader.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def milliseconds(work: Callable[[], object]) -> float:
    """The median of ROUNDS, after one that warms the caches."""
    work()
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


def lists(at: Places, kind: str, media: int) -> list[Row]:
    """A page by each filter."""
    rows = []
    with closing(Database(at.url(kind))) as database:
        fill(database, media, _MEDIA, _STREAMS)
        for filters in FILTERS:

            def page(filters: dict[str, Any] = filters) -> None:
                with database.read_transaction() as session:
                    options = {"status": None, "media_type": None, "limit": 50, "cursor": None} | filters
                    media_items.page(session, **options)

            asked = ", ".join(f"{name} {value}" for name, value in filters.items()) or "no filter"
            rows.append((f"a page of {media:,} media: {asked}", kind, f"{milliseconds(page):.2f} ms"))
    return rows


def claims(at: Places, kind: str, _media: int) -> list[Row]:
    """A claim beside few and many runs that wait."""
    rows = []
    for waiting in (10 + ROUNDS, 100_000):
        with closing(Database(at.url(kind))) as database:
            fill(database, waiting, _MEDIA, _STREAMS, _RUNS)
            leasing = Claims(database.now)

            def claim(database: Database = database, leasing: Claims = leasing) -> None:
                with database.write_transaction() as session:
                    assert leasing.lease(session, Claimant("owner", "detector", 600.0))

            rows.append((f"a run's claim, {waiting:,} waiting", kind, f"{milliseconds(claim):.2f} ms"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with places() as at:
        for part in (lists, claims):
            for kind in KINDS:
                table = Table("what", "database", "median", box=None, show_header=part is lists and kind == KINDS[0])
                for row in part(at, kind, arguments.media):
                    table.add_row(*row)
                Console().print(table)


if __name__ == "__main__":
    main()
