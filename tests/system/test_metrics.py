"""What /metrics tells is right across several server processes, restarts of them, and detection elsewhere."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from app.web.metrics.process import COUNTED_BYTES
from tests import fork_server
from tests.api.conftest import RUNS_OUT, picture
from tests.eventually import eventually
from tests.paths import ROOT
from tests.system.service import Service, surroundings, token
from tests.web.raw_client import RawClient

Figures = dict[tuple[str, tuple[str, ...]], float]
UPLOADS = 16
MP4_HEAD = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2"


@pytest.fixture
def two(tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    """A service of two workers that delivers to nobody."""
    service = Service(tmp_path, sqlite_url, None, TMPDIR=str(tmp_path))
    try:
        service.start("--workers", "2")
        until_answering(service, 2)
        yield service
    finally:
        service.stop()
        service.kill()


def figures(service: Service) -> Figures:
    """Every sample by its name and the values of its labels, as one of the workers tells it."""
    answer = requests.get(f"{service.url}/metrics", timeout=30)
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return {(one.name, tuple(one.labels.values())): one.value for family in families for one in family.samples}


def answering(service: Service) -> set[int]:
    """Which processes have figures."""
    files = service.folder.glob("detections-metrics-*/histogram_*.db")
    return {int(path.stem.rpartition("_")[2]) for path in files}


def until_answering(service: Service, count: int) -> None:
    """Ask until so many processes, those that are gone included, have answered something."""
    with ThreadPoolExecutor(4) as clients:

        def asked() -> bool:
            list(clients.map(lambda _number: service.request("GET", "/healthz"), range(8)))
            return len(answering(service)) >= count

        eventually(asked, f"answers of {count} processes")


def upload_over_both(service: Service, first: int) -> None:
    with ThreadPoolExecutor(8) as clients:
        numbers = range(first, first + UPLOADS)
        answers = list(clients.map(lambda number: service.upload("/media", picture(number)), numbers))
    assert [answer.status_code for answer in answers] == [201] * UPLOADS


@pytest.mark.long
def test_both_processes_tell_of_every_upload_and_each_time_the_same(two: Service) -> None:
    upload_over_both(two, 100)
    size = sum(len(picture(number)) for number in range(100, 100 + UPLOADS))
    two.upload("/media", picture(100))
    two.upload("/media", b"text", "notes.txt")
    two.upload("/detect", RUNS_OUT)
    two.upload("/detect?persist=false", picture(100))
    later = {"Prefer": "respond-async"}
    two.upload("/detect", picture(900), headers=later)
    two.upload("/detect", picture(900), headers=later)
    size += len(RUNS_OUT) + 2 * len(picture(100)) + 2 * len(picture(900))
    waiting = [("detections_run_queue", (state,)) for state in ("queued", "running")]
    eventually(lambda: not any(figures(two)[name] for name in waiting), "the runs to end")
    outcomes = {"stored": UPLOADS + 1, "duplicate": 2, "unsupported-media": 1, "undecodable": 1, "in-memory": 1}
    for _ in range(10):
        told = figures(two)
        assert {name[1][0]: count for name, count in told.items() if name[0] == "detections_uploads_total"} == outcomes
        assert told["detections_upload_bytes_total", ()] == size
        stored = told["detections_request_seconds_count", ("POST", "/media", "2xx")]
        assert stored == UPLOADS + 1
        assert told["detections_request_seconds_bucket", ("+Inf", "POST", "/media", "2xx")] == stored
        assert told["detections_request_seconds_count", ("POST", "/media", "4xx")] == 1
        assert told["detections_slots_taken", ()] == 0
        assert told["detections_runs_total", ("done",)] == 1
        assert told["detections_runs_total", ("failed",)] == 1
        assert told["detections_run_seconds_count", ("done",)] == 1
        assert told["detections_frames_total", ()] == 1
        assert told["detections_outbox_pending_messages", ()] == UPLOADS + 6
    for number in range(3):  # what clients make up makes no figures of its own
        two.request(f"METHOD{number}", "/media")
        two.request("GET", f"/no/such/path/{number}")
    named = {name[1][:2] for name in figures(two) if name[0] == "detections_request_seconds_count"}
    assert ("any", "none") in named
    assert not [one for one in named if one[0].startswith("METHOD") or "such" in one[1]]


def test_a_long_upload_is_counted_while_it_comes_and_to_its_last_byte_where_it_breaks_off(two: Service) -> None:
    def counted() -> float:
        return figures(two)["detections_upload_bytes_total", ()]

    host, _, port = two.url.removeprefix("http://").partition(":")
    file = MP4_HEAD + bytes(COUNTED_BYTES + 100_000)
    with RawClient(socket.create_connection((host, int(port)), timeout=30)) as client:
        bearer = f"Authorization: Bearer {token()}\r\n".encode()
        length = f"Content-Length: {2 * len(file)}\r\nContent-Type: video/mp4\r\n\r\n".encode()
        client.send(b"POST /media?name=flight.mp4 HTTP/1.1\r\nHost: here\r\n" + bearer + length)
        client.send(file)
        eventually(lambda: COUNTED_BYTES <= counted() <= len(file))
        client.end()
        assert client.answer().status == 400
    assert counted() == len(file)


def test_what_a_lost_process_has_done_stays_counted_until_the_server_ends(two: Service) -> None:
    upload_over_both(two, 200)
    lost = min(answering(two))
    os.kill(lost, signal.SIGKILL)
    until_answering(two, 3)
    assert not list(two.folder.glob(f"detections-metrics-*/gauge_*_{lost}.db"))
    assert figures(two)["detections_uploads_total", ("stored",)] == UPLOADS
    two.stop()
    assert not list(two.folder.glob("detections-metrics-*"))


@pytest.mark.long
def test_processes_share_metrics_when_the_application_is_loaded_before_them(tmp_path: Path, sqlite_url: str) -> None:
    service = Service(tmp_path, sqlite_url, None, TMPDIR=str(tmp_path))
    try:
        service.start("--workers", "2", "--preload")
        until_answering(service, 2)
        upload_over_both(service, 300)
        for _ask in range(6):
            assert figures(service)["detections_uploads_total", ("stored",)] == UPLOADS
    finally:
        service.stop()
    assert not list(tmp_path.glob("detections-metrics-*"))


@pytest.mark.long
def test_a_reload_keeps_the_metrics_and_their_folder_goes_with_the_server(two: Service) -> None:
    upload_over_both(two, 400)
    before = answering(two)
    assert two.process is not None
    two.process.send_signal(signal.SIGHUP)
    until_answering(two, len(before) + 2)
    assert figures(two)["detections_uploads_total", ("stored",)] == UPLOADS
    two.stop()
    assert not list(two.folder.glob("detections-metrics-*"))


@pytest.mark.long
def test_a_start_removes_what_killed_servers_left_in_the_temporary_folder_and_nothing_of_a_living_one(
    two: Service, sqlite_url: str
) -> None:
    other = Service(two.folder, sqlite_url, None, TMPDIR=str(two.folder))
    before = set(two.folder.iterdir())
    try:
        for _time in range(3):
            other.start()
            other.kill()
        other.start()
        assert len(list(two.folder.glob("detections-metrics-*"))) == 2
        assert answering(two)
        other.stop()
    finally:
        other.kill()
    assert set(two.folder.iterdir()) == before
    upload_over_both(two, 500)


def test_a_check_of_the_configuration_passes_and_leaves_no_folder(tmp_path: Path, sqlite_url: str) -> None:
    service = Service(tmp_path, sqlite_url, None, TMPDIR=str(tmp_path))
    checked = fork_server.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--check-config"],
        cwd=ROOT,
        env=surroundings() | service.environment,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr
    assert not list(tmp_path.glob("detections-metrics-*"))
