"""Row 45: a database server that is there and says nothing, one that lets nobody write, and what a service does then.

SILENT_SECONDS (default 12) is how long it is silent; the full figure is 45.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import requests
from sqlalchemy import make_url

from tests import fork_server
from tests.eventually import eventually
from tests.long import later
from tests.paths import ROOT
from tests.reference.service import ReferenceService
from tests.servers.silent_server import SilentServer
from tests.system.promise import Uploads, assert_kept, photo, settle
from tests.system.service import SECRET, Service, surroundings

SILENT_SECONDS = float(os.environ.get("SILENT_SECONDS", "12"))
ANSWER_SECONDS = 10
STOP_SECONDS = 30


@pytest.fixture
def annotations(tmp_path: Path) -> Iterator[ReferenceService]:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as service:
        yield service


@pytest.fixture
def silent(postgres_url: str) -> Iterator[SilentServer]:
    server = SilentServer(postgres_url)
    yield server
    server.stop()


@pytest.fixture
def service(tmp_path: Path, silent: SilentServer, annotations: ReferenceService) -> Iterator[Service]:
    service = Service(tmp_path, silent.url, annotations.url, DETECTION="off")
    try:
        yield service.start()
    finally:
        silent.speak()
        service.stop()
        service.kill()


def timed_upload(service: Service, number: int) -> tuple[requests.Response, float]:
    began = time.monotonic()
    return service.upload("/media", photo(number), name="photo.png"), time.monotonic() - began


def test_a_silent_database_is_503_in_time_and_all_goes_on_when_it_speaks_again(
    service: Service, silent: SilentServer, annotations: ReferenceService
) -> None:
    uploads = Uploads()
    uploads.send(service, "/media", photo(0))
    silent.hush()
    ends = time.monotonic() + SILENT_SECONDS
    with ThreadPoolExecutor(8) as clients:
        while time.monotonic() < ends:
            for answer, seconds in clients.map(lambda number: timed_upload(service, number), range(1, 9)):
                assert answer.status_code == 503, answer.text
                assert "Retry-After" in answer.headers, answer.text
                assert seconds < ANSWER_SECONDS
            assert service.request("GET", "/healthz").ok
            assert service.request("GET", "/readyz").status_code == 503
    silent.speak()
    spoke = time.monotonic()
    while time.monotonic() - spoke < ANSWER_SECONDS and not service.request("GET", "/readyz").ok:
        time.sleep(0.1)
    for number in range(1, 5):
        uploads.send(service, "/media", photo(number))
    assert uploads.refused == []
    annotations.wait_for(lambda log: sum(entry["applied"] for entry in log) >= 5, seconds=ANSWER_SECONDS)
    settle(service)
    assert_kept(service, annotations, [uploads])


@pytest.mark.long
def test_a_service_ends_in_time_while_its_database_is_silent(service: Service, silent: SilentServer) -> None:
    assert service.upload("/media", photo(0), name="photo.png").ok
    silent.hush()
    assert service.process is not None
    with ThreadPoolExecutor(4) as clients:
        for number in range(1, 5):
            clients.submit(_ignoring_failure, service, number)
        time.sleep(1)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(STOP_SECONDS)
        assert time.monotonic() - began < STOP_SECONDS


def _ignoring_failure(service: Service, number: int) -> None:
    try:
        timed_upload(service, number)
    except requests.RequestException:
        return


@pytest.mark.long
@pytest.mark.parametrize("command", later([("outbox", "run")], ("detect", "run")))
def test_a_command_ends_in_time_while_its_database_is_silent(
    command: tuple[str, ...], service: Service, silent: SilentServer
) -> None:
    process = fork_server.Popen(
        [sys.executable, "-m", "flask", *command],
        cwd=ROOT,
        env=surroundings() | service.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "SIGTERM stops it" in process.stderr.readline()
        time.sleep(1)
        silent.hush()
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=STOP_SECONDS)
        assert process.returncode == 0
    finally:
        process.kill()


@pytest.mark.long
def test_a_database_that_lets_nobody_write_is_503_and_not_ready(
    service: Service, silent: SilentServer, postgres_url: str
) -> None:
    assert service.upload("/media", photo(0), name="photo.png").ok
    name = make_url(postgres_url).database
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as person:
        person.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        person.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        refused = [service.upload("/media", photo(number), name="photo.png") for number in range(1, 4)]
        assert [answer.status_code for answer in refused] == [503] * 3
        ready = service.request("GET", "/readyz")
        assert ready.status_code == 503
        assert "read-only" in ready.text
        person.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    eventually(lambda: service.upload("/media", photo(1), name="photo.png").ok, seconds=ANSWER_SECONDS)
    assert service.request("GET", "/readyz").ok
