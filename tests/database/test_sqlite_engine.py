"""How a writer waits for the lock of an SQLite database."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.database.sqlite_engine import LONGEST_PAUSE_SECONDS, SHORTEST_PAUSE_SECONDS, begin_writing


class Waiting:
    """A clock that only sleeping advances, with actions on the lock at given times."""

    def __init__(self, holder: sqlite3.Connection, frees_after: float) -> None:
        self.pauses: list[float] = []
        self._holder = holder
        self._frees_after = frees_after

    def now(self) -> float:
        return sum(self.pauses)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if self.now() >= self._frees_after:
            self._holder.rollback()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    """Two connections, the first of which is writing."""
    path = tmp_path / "database.db"
    with (
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as first,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as second,
    ):
        first.execute("PRAGMA journal_mode=WAL")
        first.execute("BEGIN IMMEDIATE")
        yield first, second


Two = tuple[sqlite3.Connection, sqlite3.Connection]


def test_a_writer_that_finds_another_one_retries_within_a_fraction_of_a_millisecond(two: Two) -> None:
    waiting = Waiting(two[0], frees_after=0.002)
    begin_writing(two[1], 20, waiting.now, waiting.sleep)
    assert two[1].in_transaction
    assert set(waiting.pauses) == {SHORTEST_PAUSE_SECONDS}


def test_a_writer_that_has_waited_long_retries_less_often_but_ten_times_in_a_tenth_of_a_second(two: Two) -> None:
    waiting = Waiting(two[0], frees_after=10)
    begin_writing(two[1], 20, waiting.now, waiting.sleep)
    assert waiting.pauses == sorted(waiting.pauses)
    assert waiting.pauses[-1] == LONGEST_PAUSE_SECONDS
    assert len(waiting.pauses) < 1200


def test_a_writer_gives_up_at_its_limit_and_leaves_the_connection_as_it_was(two: Two) -> None:
    waiting = Waiting(two[0], frees_after=60)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        begin_writing(two[1], 0.5, waiting.now, waiting.sleep)
    assert 0.5 <= waiting.now() <= 0.5 + LONGEST_PAUSE_SECONDS
    assert not two[1].in_transaction


def test_what_is_no_other_writer_is_not_waited_for(two: Two) -> None:
    two[0].rollback()
    two[1].execute("BEGIN")
    waiting = Waiting(two[0], frees_after=1)
    with pytest.raises(sqlite3.OperationalError, match="transaction within"):
        begin_writing(two[1], 20, waiting.now, waiting.sleep)
    assert waiting.pauses == []
