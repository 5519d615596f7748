"""Real databases for every test that needs one: SQLite files, and PostgreSQL from a wheel or from TEST_POSTGRES_URL.

Each test has a freshly migrated database of its own, copied from one that was migrated once.
"""

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from flask import Request, Response
from hypothesis import settings
from sqlalchemy import BindParameter, Double, bindparam, make_url
from werkzeug.exceptions import RequestEntityTooLarge

from app.database import Database
from tests.api_description import sent_messages
from tests.paths import ROOT
from tests.reference import service
from tests.servers.postgres import address, prepare_for_root, running_postgres
from tests.servers.postgres_databases import Databases

settings.register_profile("suite", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "30")), deadline=None)
settings.load_profile("suite")

TEMPLATE = "detections_template"
UNSAFE = ("fsync = off", "full_page_writes = off", "checkpoint_timeout = '1h'", "max_wal_size = '8GB'")
"""Settings of the tests' PostgreSQL server, which nobody needs after the machine has crashed."""

MakeDatabase = Callable[[], Database]


def pytest_configure() -> None:
    """End the tests at once, with one line, where hundreds would fail for the same want.

    Compiled files are written, whatever the environment says: without them each of some hundred processes would compile
    the application anew, and each worker of pytest every test.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if not os.environ.get("TEST_POSTGRES_URL"):
        try:
            prepare_for_root()
        except FileNotFoundError as error:
            raise pytest.UsageError(str(error)) from error


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of browsers and servers as slow, and begin with what is slow: a long module that came last would
    run when all others have ended."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "page") or item.path.is_relative_to(ROOT / "tests" / "system"):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


class Clock:
    """A clock that stands still until it is told to move. `sql` is what a Database takes as its `now`."""

    def __init__(self, seconds: float = 1_800_000_000.0) -> None:
        self.seconds = seconds
        self.sql: BindParameter[float] = bindparam("clock", callable_=lambda: self.seconds, type_=Double())

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


def migrate(url: str, revision: str = "head") -> None:
    """Bring a database to a revision, as `alembic upgrade` does."""
    config = Config(ROOT / "alembic.ini")
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, revision)


@pytest.fixture(scope="session", autouse=True)
def _observed_reference_service() -> Iterator[None]:
    """Whatever arrives at a reference service in this process is held against the description."""
    service.observers.append(_observe)
    yield
    service.observers.remove(_observe)


@pytest.fixture(autouse=True)
def _every_message_is_as_described() -> Iterator[None]:
    sent_messages.found.clear()
    yield
    assert sent_messages.found == []


def _observe(request: Request, _response: Response) -> None:
    with suppress(RequestEntityTooLarge):
        sent_messages.observe(request.method, request.path, dict(request.headers), request.get_data())


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite database to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL server whose databases are the tests' own."""
    given = os.environ.get("TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with running_postgres() as server:
        url = address(server, driver="postgresql")
        for setting in UNSAFE:  # a test of what survives a crash of the machine has a server of its own
            _administer(url, f"ALTER SYSTEM SET {setting}")
        _administer(url, "SELECT pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """The name of a migrated, empty PostgreSQL database to copy."""
    name = f"{TEMPLATE}_{uuid.uuid4().hex[:8]}"
    _administer(postgres_server, f"CREATE DATABASE {name}")
    migrate(database_address(postgres_server, name))
    return name


@pytest.fixture
def sqlite_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated SQLite database for this test alone."""
    with lent_database(request, "sqlite", tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: str, postgres_template: str) -> Databases:
    return Databases(postgres_server, postgres_template)


@contextmanager
def lent_database(request: pytest.FixtureRequest, kind: str, folder: Path) -> Iterator[str]:
    """The URL of a migrated, empty database, "sqlite" in that folder or "postgres", for a fixture of any scope."""
    if kind == "sqlite":
        path = folder / "detections.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    databases: Databases = request.getfixturevalue("postgres_databases")
    name = databases.take()
    yield database_address(request.getfixturevalue("postgres_server"), name)
    databases.give_back(name)


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated, empty PostgreSQL database for this test alone."""
    with lent_database(request, "postgres", tmp_path) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of each kind in turn, with the real clock."""
    with closing(Database(database_url)) as database:
        yield database


@pytest.fixture
def timed_database(database_url: str, clock: Clock) -> Iterator[Database]:
    """A database of each kind in turn, whose time is the `clock` fixture's."""
    with closing(Database(database_url, now=clock.sql)) as database:
        yield database


def database_address(server: str, database: str) -> str:
    """The URL of that database on a server, whose own is given as psycopg takes it."""
    url = make_url(server).set(drivername="postgresql+psycopg", database=database)
    return url.render_as_string(hide_password=False)


def _administer(server: str, statement: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement.encode())
