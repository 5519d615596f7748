"""Responses to clients and probes while the database file is missing or locked."""

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from tests.api.conftest import Api, MakeApi, picture
from tests.api.test_health import not_ready
from tests.eventually import eventually
from tests.reference.service import ReferenceService

COPY = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', sys.argv[2:])"


def file_of(api: Api) -> Path:
    return Path(str(api.services.database.url.database))


def media_in(path: Path) -> int:
    """Return the number of media items in a file whose log the service may still be checkpointing."""

    def count() -> str:
        try:
            with closing(sqlite3.connect(path)) as connection:
                return str(connection.execute("SELECT count(*) FROM media").fetchone()[0])
        except sqlite3.OperationalError:
            return ""

    return int(eventually(count, "the file to be readable"))


def until_ready(api: Api) -> None:
    eventually(lambda: api.app.test_client().get("/readyz").status_code == 200)


def is_refused(answer: TestResponse, words: str) -> bool:
    assert answer.json is not None
    return answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0 and words in answer.json["detail"]


def test_while_the_file_is_away_nothing_is_taken_or_told_and_it_goes_on_once_it_is_back(make_api: MakeApi) -> None:
    api = make_api(DETECTION="off")
    assert api.upload("/media", picture(1)).status_code == 201
    path = file_of(api)
    path.rename(path.with_name("aside.db"))
    for path_of_call in ("/media", "/detect"):
        assert is_refused(api.upload(path_of_call, picture(2)), "was moved or deleted")
    assert is_refused(api.get("/media"), "was moved or deleted")
    detail = not_ready(api)
    assert "was moved or deleted" in detail
    assert str(path) not in detail
    assert not path.exists()
    assert api.leftovers() == []
    path.with_name("aside.db").rename(path)
    until_ready(api)
    assert api.upload("/media", picture(2)).status_code == 201
    answer = api.get("/media")
    assert answer.json is not None
    assert len(answer.json["items"]) == 2


def test_an_upload_that_the_move_has_overtaken_is_not_acknowledged(make_api: MakeApi) -> None:
    api = make_api(DETECTION="off")
    path = file_of(api)
    done = threading.Event()

    def move() -> None:
        time.sleep(0.1)
        path.rename(path.with_name("aside.db"))
        done.set()

    threading.Thread(target=move).start()
    acknowledged, number = 0, 0
    while not done.is_set():
        number += 1
        acknowledged += api.upload("/media", picture(number, size=(8, 8))).status_code == 201
    assert is_refused(api.upload("/media", picture(9999)), "was moved or deleted")
    assert media_in(path.with_name("aside.db")) >= acknowledged


def test_an_earlier_copy_in_the_files_place_is_a_restored_database_and_goes_on_in_a_new_epoch(
    make_api: MakeApi, annotations: ReferenceService
) -> None:
    api = make_api(annotations, DETECTION="off")
    path = file_of(api)
    assert api.upload("/media", picture(1)).status_code == 201
    copy = path.with_name("copy.db")
    subprocess.run([sys.executable, "-c", COPY, str(path), str(copy)], check=True)
    assert api.upload("/media", picture(2)).status_code == 201
    marker = api.images / ".detections" / "marker.json"
    before = marker.read_text()
    eventually(lambda: marker.read_text() != before, "the marker, which follows within seconds")
    for file in path.parent.glob("detections.db*"):
        file.unlink()
    copy.rename(path)
    assert is_refused(api.upload("/media", picture(3)), "The database's file was replaced")
    until_ready(api)
    with api.services.database.read_transaction() as session:
        found = api.services.outbox_status(session)
    assert found["epoch"] == 2
    assert found["restoredAt"] is not None
    assert api.upload("/media", picture(3)).status_code == 201
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM media").fetchone()[0] == 2


@pytest.mark.long
def test_another_services_database_in_the_files_place_is_not_used(make_api: MakeApi, sqlite_template: Path) -> None:
    api = make_api(DETECTION="off")
    path = file_of(api)
    assert api.upload("/media", picture(1)).status_code == 201
    aside = [file.rename(file.with_name(f"aside-{file.name}")) for file in path.parent.glob("detections.db*")]
    shutil.copy(sqlite_template, path)
    eventually(lambda: "one that is not used" in not_ready(api), seconds=30)
    assert is_refused(api.upload("/media", picture(2)), "was replaced by one")
    for file in aside:
        file.rename(file.with_name(file.name.removeprefix("aside-")))
    until_ready(api)
    assert api.upload("/media", picture(2)).status_code == 201


@pytest.mark.timeout(60)
def test_somebodys_write_lock_is_waited_for_once_and_then_told_as_the_databases(make_api: MakeApi) -> None:
    api = make_api(DETECTION="off")
    until_ready(api)
    api.services.database.busy_seconds = 0.5
    with closing(sqlite3.connect(file_of(api), isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        answers: list[TestResponse] = []
        threads = [
            threading.Thread(target=lambda number=number: answers.append(api.upload("/media", picture(number))))
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 5
        assert all(is_refused(answer, "database") for answer in answers), [answer.text for answer in answers]
        eventually(lambda: "another program holds its lock" in api.app.test_client().get("/readyz").text)
        shell.execute("ROLLBACK")
    until_ready(api)
    assert api.upload("/media", picture(1)).status_code == 201
