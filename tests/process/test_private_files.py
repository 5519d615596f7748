"""The database, its log and `.incoming` are accessible to their owner only, regardless of umask and earlier modes."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from app.database import Database
from app.process.private_files import make_private
from app.storage import INCOMING, Storage

UMASKS = (0o000, 0o002, 0o022, 0o027, 0o077)


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_something(database: Database) -> None:
    with database.write_transaction() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS x (y INTEGER)"))
        session.execute(text("INSERT INTO x VALUES (1)"))


def test_a_new_database_and_its_log_are_its_owners_alone(umask: int, tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    with closing(Database(f"sqlite:///{path}", may_create=True)) as database:
        write_something(database)
        found = {file.name: mode(file) for file in tmp_path.iterdir()}
    assert found == {"d.db": 0o600, "d.db-wal": 0o600, "d.db-shm": 0o600}


def test_a_database_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    with closing(Database(f"sqlite:///{path}", may_create=True)) as first:
        write_something(first)
        for file in tmp_path.iterdir():
            file.chmod(0o664)
        with closing(Database(f"sqlite:///{path}")) as second:
            write_something(second)
            assert {mode(file) for file in tmp_path.iterdir()} == {0o600}


def test_files_on_their_way_in_are_in_a_folder_that_nobody_else_enters(umask: int, tmp_path: Path) -> None:
    storage = Storage({"Image": tmp_path / "images", "Video": tmp_path / "videos"})
    storage.prepare()
    for folder in storage.folders:
        assert mode(folder / INCOMING) == 0o700
        assert mode(folder) == 0o777 & ~umask  # the media folders are as their operator wants them


def test_an_incoming_folder_of_before_is_closed_to_others(tmp_path: Path) -> None:
    storage = Storage({"Image": tmp_path})
    (tmp_path / INCOMING).mkdir()
    (tmp_path / INCOMING).chmod(0o775)
    storage.prepare()
    assert mode(tmp_path / INCOMING) == 0o700


def test_a_right_that_the_owner_lacks_is_not_given(tmp_path: Path) -> None:
    file = tmp_path / "read-only"
    file.touch(0o444)
    file.chmod(0o444)
    make_private(file)
    assert mode(file) == 0o400
    make_private(tmp_path / "none")
