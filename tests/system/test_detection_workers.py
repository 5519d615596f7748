"""Detection apart from the web process: `flask detect run` takes runs from the database, and may die at any moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text

from app.database import Database
from app.media.hashing import media_id_of_bytes
from tests import fork_server
from tests.api.conftest import picture
from tests.detection.clips import Clip
from tests.eventually import eventually
from tests.long import postgres_first
from tests.paths import ROOT
from tests.system.service import Service, surroundings

pytestmark = pytest.mark.timeout(400)

ASTRONAUT = ROOT / "app" / "demo" / "media" / "astronaut.jpg"
FRAMES = 120


class Workers:
    """`flask detect run` as processes, each in a group of its own with its detectors."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._made: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "flask", "detect", "run"]
        environment = surroundings() | self._service.environment
        with (self._service.folder / "workers.log").open("ab") as log:
            worker: subprocess.Popen[bytes] = fork_server.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._made.append(worker)
        return worker

    def close(self) -> None:
        for worker in self._made:
            if worker.poll() is None:
                kill(worker)


def kill(worker: subprocess.Popen[bytes]) -> None:
    """End it and its detectors as a power cut would."""
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(30)


@pytest.fixture
def web(tmp_path: Path, database_url: str) -> Iterator[Service]:
    """The service without any detector, on a database of each kind."""
    service = Service(tmp_path, database_url, None, DETECTION="off")
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


@pytest.fixture
def workers(web: Service) -> Iterator[Workers]:
    with closing(Workers(web)) as workers:
        yield workers


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that takes some seconds to look through."""
    photo = Image.open(ASTRONAUT).convert("RGB")
    return Clip("clip.mp4", frames=FRAMES).write(tmp_path_factory.mktemp("clips"), photo)


def run_of(web: Service, media_id: str) -> dict[str, Any]:
    run: dict[str, Any] = web.request("GET", f"/media/{media_id}").json()["run"]
    return run


def expire_leases(database_url: str) -> None:
    """As if the time of a lease had passed."""
    with closing(Database(database_url)) as database, database.write_transaction() as session:
        session.execute(text("UPDATE detection_run SET lease_until = 0 WHERE state = 'running'"))


def attempts(database_url: str) -> int:
    with closing(Database(database_url)) as database, database.read_transaction() as session:
        count: int = session.execute(text("SELECT attempts FROM detection_run")).scalar_one()
        return count


@postgres_first
def test_runs_wait_for_workers_who_share_them(web: Service, workers: Workers) -> None:
    later = {"Prefer": "respond-async"}
    names = [f"{number}.jpg" for number in range(4)]
    for number, name in enumerate(names):
        assert web.upload("/detect", picture(number), name, headers=later).status_code == 202
    media = [media_id_of_bytes(picture(number)) for number in range(4)]
    assert {run_of(web, media_id)["state"] for media_id in media} == {"queued"}
    refused = web.upload("/detect?persist=false", ASTRONAUT)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "60"
    assert "DETECTION is off" in refused.json()["detail"]
    pair = [workers.start(), workers.start()]
    answer = web.upload("/detect", ASTRONAUT)
    assert answer.status_code == 201, answer.text
    assert answer.json()["annotations"][0]["detections"][0]["label"] == "person"
    eventually(lambda: {run_of(web, media_id)["state"] for media_id in media} == {"done"})
    for worker in pair:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0


@pytest.mark.long
def test_a_worker_hands_back_what_it_is_told_to_leave_and_killed_workers_count_against_no_file(
    web: Service, workers: Workers, clip: Path, database_url: str
) -> None:
    answer = web.upload("/detect?frameInterval=0.1", clip, headers={"Prefer": "respond-async"})
    media_id = answer.json()["media"]["id"]
    stopped = workers.start()
    eventually(lambda: run_of(web, media_id)["framesDone"] > 0)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(30) == 0
    assert run_of(web, media_id)["state"] == "queued"
    assert attempts(database_url) == 0
    for _kill in range(3):
        worker = workers.start()
        eventually(lambda: attempts(database_url) == 1 and run_of(web, media_id)["framesDone"] > 0)
        kill(worker)
        expire_leases(database_url)
    workers.start()
    eventually(lambda: run_of(web, media_id)["state"] == "done")
    record = web.request("GET", f"/media/{media_id}").json()
    assert record["mediaStatus"] == 3
    assert attempts(database_url) == 1
    assert record["delivery"]["pending"] == 3


def test_a_stream_does_not_hold_up_the_end_of_its_process(web: Service) -> None:
    web.upload("/detect", ASTRONAUT, headers={"Prefer": "respond-async"})
    path = f"/media/{media_id_of_bytes(ASTRONAUT.read_bytes())}/events"
    with web.request("GET", path, stream=True) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith(b"id: ")
        began = time.monotonic()
        web.stop()
        assert time.monotonic() - began < 15
        assert b"event: done" not in list(lines)
