"""Fixtures: an outbox on each kind of database, with the real clock or with one that a test moves."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from app.database import Database
from tests.conftest import Clock
from tests.outbox.world import Receiver, World


@pytest.fixture
def world(timed_database: Database) -> Iterator[World]:
    """An outbox whose database clock is the `clock` fixture's, on each kind of database in turn."""
    with closing(World(timed_database)) as world:
        yield world


@pytest.fixture
def live_world(database: Database) -> Iterator[World]:
    """An outbox on real time, on each kind of database in turn."""
    with closing(World(database)) as world:
        yield world


@pytest.fixture
def receiver() -> Receiver:
    """A receiver that accepts everything unless a test sets answers."""
    return Receiver()


@pytest.fixture
def sqlite_world(sqlite_url: str, clock: Clock) -> Iterator[World]:
    """As `world`, on SQLite only, for tests of many turns without dialect-specific statements."""
    with closing(Database(sqlite_url, now=clock.sql)) as database, closing(World(database)) as world:
        yield world
