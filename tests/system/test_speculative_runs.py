"""The service is killed between the commit that accepts a picture and its run, and another goes on with it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.database import Database
from app.media.hashing import media_id_of_bytes
from tests.api.conftest import picture
from tests.eventually import eventually
from tests.long import sqlite_first
from tests.paths import ROOT
from tests.system.service import Service

ASTRONAUT = ROOT / "app" / "demo" / "media" / "astronaut.jpg"


@pytest.fixture
def service(tmp_path: Path, database_url: str) -> Iterator[Service]:
    """Gunicorn with one detector, on a database of each kind."""
    service = Service(tmp_path, database_url, None)
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


def detector_of(service: Service) -> int:
    """The process id of the service's only detector."""
    assert service.process is not None
    [detector] = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and _is_detector(process, service.process.pid)
    ]
    return detector


def _is_detector(process: Path, session: int) -> bool:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        return int(fields[3]) == session and b"child.py" in (process / "cmdline").read_bytes()
    except FileNotFoundError:
        return False


def run_in(database_url: str, media_id: str) -> dict[str, Any]:
    with closing(Database(database_url)) as database, database.read_transaction() as session:
        wanted = text("SELECT state, attempts, lease_epoch FROM detection_run WHERE media_id = :id")
        return dict(session.execute(wanted, {"id": media_id}).mappings().one())


@pytest.mark.long
@sqlite_first
def test_a_picture_leased_with_its_record_outlives_a_kill_before_its_run(service: Service, database_url: str) -> None:
    assert service.upload("/detect", picture(1)).status_code == 201
    time.sleep(0.5)  # until the detector waits for something to do, which nobody tells
    os.kill(detector_of(service), signal.SIGSTOP)
    accepted = service.upload("/detect", ASTRONAUT, headers={"Prefer": "respond-async"})
    media = accepted.json()["media"]
    assert accepted.status_code == 202
    assert media["mediaStatus"] == 2
    assert media["run"]["state"] == "running"
    service.kill()
    media_id = media_id_of_bytes(ASTRONAUT.read_bytes())
    assert run_in(database_url, media_id) == {"state": "running", "attempts": 1, "lease_epoch": 1}
    service.start()
    with closing(Database(database_url)) as database, database.write_transaction() as session:
        session.execute(text("UPDATE detection_run SET lease_until = 0 WHERE state = 'running'"))  # its time has passed
    eventually(lambda: service.request("GET", f"/media/{media_id}").json()["run"]["state"] == "done")
    record = service.request("GET", f"/media/{media_id}").json()
    assert run_in(database_url, media_id) == {"state": "done", "attempts": 1, "lease_epoch": 2}
    assert record["mediaStatus"] == 3
    assert record["delivery"]["pending"] == 3
    found = service.request("GET", f"/media/{media_id}/detections").json()["annotations"]
    assert [one["label"] for one in found[0]["detections"]] == ["person"]
