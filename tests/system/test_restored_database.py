"""Reliability row 39: our own database is put back from a copy that was taken under load.

The full figure: RESTORE_RUNS=100 python -m pytest tests/system/test_restored_database.py --timeout=0
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from tests.eventually import eventually
from tests.long import sqlite_first
from tests.reference.ordering import check_log
from tests.reference.service import ReferenceService
from tests.system.promise import Uploads, photo
from tests.system.service import Service

RUNS = int(os.environ.get("RESTORE_RUNS", "3"))
ITEMS = 2
COPY = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', sys.argv[2:])"
SECONDS = 60 + RUNS
MARKERS_FOLLOW_WITHIN = 4.0


@pytest.fixture
def service(tmp_path: Path, database_url: str, annotations: ReferenceService) -> Iterator[Service]:
    service = Service(tmp_path, database_url, annotations.url)
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


class Copy:
    """A copy of the service's database: on SQLite by VACUUM INTO, on PostgreSQL as another database of the server."""

    def __init__(self, service: Service) -> None:
        self._url = make_url(service.environment["DATABASE_URL"])
        self._service = service
        self._file = service.folder / "copy.db"

    def take(self) -> None:
        if self._url.get_backend_name() == "sqlite":
            command = [sys.executable, "-c", COPY, str(self._url.database), str(self._file)]
            subprocess.run(command, check=True, capture_output=True)
            return
        self._service.stop()  # a database that is connected to cannot be a template
        self._administer(f"CREATE DATABASE {self._url.database}_copy TEMPLATE {self._url.database}")
        self._service.start()

    def put_back(self) -> None:
        if self._url.get_backend_name() == "sqlite":
            for path in Path(str(self._url.database)).parent.glob("detections.db*"):
                path.unlink()
            shutil.copy(self._file, str(self._url.database))
            return
        self._administer(f"DROP DATABASE {self._url.database} WITH (FORCE)")
        self._administer(f"CREATE DATABASE {self._url.database} TEMPLATE {self._url.database}_copy")
        self._administer(f"DROP DATABASE {self._url.database}_copy")

    def _administer(self, statement: str) -> None:
        url = self._url.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())


def run_again(service: Service, media_id: str) -> None:
    """A new run of a stored item, waited for."""

    def is_done() -> bool:
        answer = service.request("POST", f"/detect/{media_id}")
        assert answer.status_code in (200, 202, 409), answer.text
        return answer.status_code == 200

    eventually(is_done, seconds=SECONDS)


def load(service: Service, uploads: Uploads) -> None:
    for number in range(100, 102):
        uploads.send(service, "/detect", photo(number))


def told(service: Service, *arguments: str) -> None:
    """What a command ends with must be exit code 0."""
    ended = service.flask(*arguments, "--json", timeout=SECONDS + 60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def drained(service: Service) -> list[dict[str, Any]]:
    """Every item, once no run is under way and everything has arrived."""

    def settled() -> list[dict[str, Any]] | None:
        items: list[dict[str, Any]] = service.request("GET", "/media", params={"limit": "500"}).json()["items"]
        under_way = any(item["run"] and item["run"]["state"] in ("queued", "running") for item in items)
        return None if under_way or any(item["delivery"]["pending"] for item in items) else items

    return eventually(settled, "everything to arrive", seconds=SECONDS)


@sqlite_first
@pytest.mark.timeout(300)
def test_a_restored_database_is_noticed_and_no_number_is_used_twice_within_an_epoch(
    service: Service, annotations: ReferenceService
) -> None:
    uploads, after = Uploads(), Uploads()
    for number in range(ITEMS):
        uploads.send(service, "/detect", photo(number))
    assert len(uploads.promised) == ITEMS, uploads.refused
    copy = Copy(service)
    loads = threading.Thread(target=load, args=(service, after))
    if service.environment["DATABASE_URL"].startswith("sqlite"):
        loads.start()  # the copy is taken beside it
        copy.take()
    else:
        copy.take()
        loads.start()
    for number in range(RUNS):
        run_again(service, list(uploads.promised)[number % ITEMS])
    loads.join()
    drained(service)
    time.sleep(MARKERS_FOLLOW_WITHIN)
    service.kill()
    copy.put_back()
    before = service.log.stat().st_size
    service.start()
    said = [line for line in service.log.read_bytes()[before:].decode().splitlines() if "database_restored" in line]
    assert len(said) == 1
    for command in ("flask outbox verify --remote", "flask outbox resend --missing", "flask media verify"):
        assert command in said[0]
    assert service.outbox()["epoch"] == 2
    assert service.outbox()["restoredAt"] is not None
    for media_id in uploads.promised:
        run_again(service, media_id)
    for content in after.promised.values():
        again = service.upload("/detect", content, name="photo.png")
        assert again.status_code in (200, 201), again.text
    uploads.send(service, "/detect", photo(1000))
    drained(service)
    told(service, "outbox", "resend", "--missing")
    here = {item["id"]: item["mediaStatus"] for item in drained(service)}
    assert {record["id"]: record["mediaStatus"] for record in annotations.records()} == here
    assert check_log(annotations.log()) == []
    assert {entry["epoch"] for entry in annotations.log() if entry["seq"]} == {1, 2}
    assert service.outbox()["restoredAt"] is None
    told(service, "outbox", "verify", "--remote")
