"""An SQLite file that is missing, moved, deleted or replaced: nothing is read from or committed to another file."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, text
from structlog.testing import capture_logs

from app.database import Database
from app.database.models import OutboxCircuit
from app.errors import DatabaseFailed, DatabaseUnfit, Unavailable
from tests import fork_server
from tests.long import later
from tests.paths import ROOT

ANY = select(OutboxCircuit.failures).limit(1)


def nothing() -> None:
    """Accept every file."""


def count(database: Database, failures: int) -> None:
    with database.write_transaction() as session:
        session.execute(text("DELETE FROM outbox_circuit"))
        session.add(OutboxCircuit(endpoint="endpoint", state="closed", failures=failures))


def counted(database: Database) -> int | None:
    with database.read_transaction() as session:
        return session.scalar(select(OutboxCircuit.failures))


def counted_in(path: Path) -> int:
    """Count rows as a process that opens the path anew does."""
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute("SELECT failures FROM outbox_circuit").fetchone()[0]
        return found


def refusal(use: Callable[[], object]) -> DatabaseFailed:
    with pytest.raises(DatabaseFailed) as refused:
        use()
    return refused.value


def found(database: Database) -> object:
    with database.read_transaction() as session:
        return session.scalar(ANY)


def refused_everywhere(database: Database) -> str:
    """Check that reads, queries, writes and the write probe are refused; return the advice."""
    for use in (lambda: counted(database), lambda: found(database), lambda: count(database, 99)):
        assert str(database.url.database) not in str(refusal(use))
    return refusal(database.check_writable).advice


@pytest.fixture
def home(tmp_path: Path, sqlite_template: Path) -> Path:
    """A folder with a database that a test may move."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(sqlite_template, folder / "d.db")
    return folder


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{home / 'd.db'}", busy_seconds=0.5)) as database:
        count(database, 1)
        assert counted(database) == 1
        yield database


def rename_file(home: Path) -> Callable[[], object]:
    (home / "d.db").rename(home / "aside.db")
    return lambda: (home / "aside.db").rename(home / "d.db")


def rename_file_and_log(home: Path) -> Callable[[], object]:
    for file in list(home.iterdir()):
        file.rename(home / f"aside-{file.name}")
    return lambda: [file.rename(home / file.name.removeprefix("aside-")) for file in list(home.iterdir())]


def rename_folder(home: Path) -> Callable[[], object]:
    aside = home.with_name("aside")
    home.rename(aside)
    return lambda: aside.rename(home)


@pytest.mark.parametrize("move", [rename_file, rename_file_and_log, rename_folder])
def test_nothing_is_read_or_committed_while_the_file_is_away_and_all_goes_on_when_it_is_back(
    database: Database, home: Path, move: Callable[[Path], Callable[[], object]]
) -> None:
    with capture_logs() as logs:
        put_back = move(home)
        assert f"{home / 'd.db'} was moved or deleted" in refused_everywhere(database)
        put_back()
        assert counted(database) == 1
        count(database, 2)
    assert counted_in(home / "d.db") == 2
    assert [line["event"] for line in logs] == ["database_failed", "database_works_again"]
    assert "put the database's own file back" in logs[0]["advice"]


def test_a_commit_is_not_acknowledged_where_the_file_was_moved_during_its_transaction(
    database: Database, home: Path
) -> None:
    def be_moved() -> None:
        with database.write_transaction() as connection:
            connection.execute(text("UPDATE outbox_circuit SET failures = 7"))
            (home / "d.db").rename(home / "aside.db")

    assert isinstance(refusal(be_moved), Unavailable)
    assert not (home / "d.db").exists()


def test_a_link_that_is_turned_elsewhere_is_noticed_and_turned_back_goes_on(
    home: Path, tmp_path: Path, sqlite_template: Path
) -> None:
    link, other = tmp_path / "link.db", tmp_path / "other.db"
    shutil.copy(sqlite_template, other)
    link.symlink_to(home / "d.db")
    with closing(Database(f"sqlite:///{link}")) as database:
        count(database, 1)
        link.unlink()
        link.symlink_to(other)
        assert "was replaced" in refused_everywhere(database)
        link.unlink()
        link.symlink_to(home / "d.db")
        assert counted(database) == 1


def test_a_file_that_replaces_another_is_used_by_its_examiner_alone_until_it_is_admitted(
    database: Database, home: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    with closing(database.reader.raw_connection()) as connection:
        connection.cursor().execute("VACUUM INTO ?", (str(copy),))
    count(database, 2)
    for file in home.iterdir():
        file.unlink()
    shutil.copy(copy, home / "d.db")  # which likely has the number that the deleted file had
    seen: list[int | None] = []

    def examine() -> None:
        seen.append(counted(database))
        count(database, 5)

    assert "was replaced" in refused_everywhere(database)
    assert database.admit_replacement(examine)
    assert seen == [1]
    assert counted(database) == 5
    count(database, 6)
    assert counted_in(home / "d.db") == 6
    assert not database.admit_replacement(examine)


def test_a_file_against_which_something_is_found_stays_unused_and_the_log_says_what(
    database: Database, home: Path, sqlite_template: Path
) -> None:
    def find_fault() -> None:
        raise DatabaseUnfit("it belongs to another service")

    for file in home.iterdir():
        file.unlink()
    shutil.copy(sqlite_template, home / "d.db")
    assert not database.admit_replacement(find_fault)
    with capture_logs() as logs:
        for _again in range(3):
            assert "it belongs to another service" in refused_everywhere(database)
    assert [line["event"] for line in logs] == ["database_failed"]


def test_a_file_beside_the_log_of_the_one_before_is_refused_until_that_log_is_removed(
    database: Database, home: Path, sqlite_template: Path
) -> None:
    (home / "d.db").unlink()
    shutil.copy(sqlite_template, home / "d.db")
    before = (home / "d.db").read_bytes()
    assert not database.admit_replacement(nothing)
    assert f"Remove {home / 'd.db'}-wal and {home / 'd.db'}-shm" in refused_everywhere(database)
    assert (home / "d.db").read_bytes() == before
    for suffix in ("-wal", "-shm"):
        (home / f"d.db{suffix}").unlink()
    assert database.admit_replacement(nothing)
    assert counted(database) is None


def test_a_log_that_is_removed_beneath_its_file_loses_nothing(database: Database, home: Path) -> None:
    for suffix in ("-wal", "-shm"):
        (home / f"d.db{suffix}").unlink()
    assert "was removed or replaced" in refusal(lambda: count(database, 2)).advice
    assert counted(database) == 2
    count(database, 3)
    database.close()
    assert counted_in(home / "d.db") == 3


def test_opening_a_missing_database_creates_nothing_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "typo" / "d.db"
    with closing(Database(f"sqlite:///{path}")) as database:
        assert f"no database at {path}" in refused_everywhere(database)
        with pytest.raises(DatabaseUnfit, match=str(path)):
            database.check()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_not_made_a_database_of(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    path.touch()
    with closing(Database(f"sqlite:///{path}")) as database:
        assert "alembic upgrade head" in refused_everywhere(database)
    assert path.stat().st_size == 0


WRITE_PROTECT = """
import os, sys
from pathlib import Path
from contextlib import closing
from app.database import Database
from app.errors import DatabaseFailed
from sqlalchemy import text

def count():
    with database.write_transaction() as session:
        session.execute(text("UPDATE outbox_circuit SET failures = failures + 1"))

path = Path(sys.argv[1])
if os.geteuid() == 0:  # whom no write protection stops
    os.setegid(65534)
    os.seteuid(65534)
with closing(Database(f"sqlite:///{path}")) as database:
    count()
    path.chmod(0o444)
    database.close()  # as of a process that starts now
    for use in (count, database.check_writable):
        try:
            use()
        except DatabaseFailed as error:
            assert "read-only" in str(error) and "owner and permissions" in error.advice, error.advice
        else:
            raise AssertionError(use)
    path.chmod(0o600)
    count()
    database.check_writable()
    assert database.health.failure is None
print("done")
"""


def test_a_write_protected_file_is_reported_as_such_and_written_again_once_it_may_be(sqlite_template: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.db"
        shutil.copy(sqlite_template, path)
        if os.geteuid() == 0:
            for place in (Path(folder), path):
                os.chown(place, 65534, 65534)
        ended = subprocess.run(
            [sys.executable, "-c", WRITE_PROTECT, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert ended.stdout.splitlines()[-1:] == ["done"], ended.stderr


@pytest.mark.parametrize(
    "command", later([("flask", "outbox", "status")], ("flask", "media", "recover"), ("alembic", "current"))
)
def test_a_command_without_a_database_ends_with_one_line_that_names_its_path(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/typo/d.db",
        "JWT_SECRET_KEY": "a secret that is long enough for the tests",
        "IMAGES_DIR": str(tmp_path / "images"),
        "VIDEOS_DIR": str(tmp_path / "videos"),
    }
    ended = fork_server.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=settings,
    )
    assert ended.returncode != 0
    said = ended.stdout + ended.stderr
    assert f"no database at {tmp_path}/typo/d.db" in said
    assert len(said.splitlines()) == 1, said
    assert list(tmp_path.iterdir()) == []
