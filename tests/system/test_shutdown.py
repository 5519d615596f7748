"""The service is told to end, or to reload, in the middle of uploads: what was begun is finished, or fails cleanly.

The quick form of row 16 of docs/reliability.md. TEST_SHUTDOWN_UPLOADS=50 is the full one; more uploads than there are
slots are refused by the service before it reads them, which is clean too.
"""

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.eventually import eventually
from tests.long import later
from tests.reference.service import ReferenceService
from tests.system.promise import Uploads, assert_kept, photo, settle
from tests.system.service import Service

UPLOADS = int(os.environ.get("TEST_SHUTDOWN_UPLOADS", "12"))
BACKLOG = 40
"""Messages that wait at the end, many more than are sent at once."""


class InTwoHalves:
    """A photo whose second half is sent when `go_on` is set, or never."""

    def __init__(self, number: int, go_on: threading.Event, *, to_the_end: bool) -> None:
        self.content = photo(number)
        self.begun = threading.Event()
        self._go_on = go_on
        self._to_the_end = to_the_end

    def __iter__(self) -> Iterator[bytes]:
        middle = len(self.content) // 2
        yield self.content[:middle]
        self.begun.set()
        self._go_on.wait(30)
        if not self._to_the_end:
            raise ConnectionAbortedError("this client gives up")
        yield self.content[middle:]


def send(service: Service, body: InTwoHalves, path: str) -> requests.Response | None:
    """The answer, None where the connection broke."""
    try:
        return service.request("POST", path, data=iter(body), headers={"Content-Type": "image/png"})
    except (requests.RequestException, ConnectionAbortedError):
        return None
    finally:
        body.begun.set()


def taken_down(service: Service, query: str) -> int:
    """A count in the database of a service that has ended."""
    database = sqlite3.connect(service.environment["DATABASE_URL"].removeprefix("sqlite:///"))
    try:
        count: int = database.execute(f"SELECT count(*) FROM {query}").fetchone()[0]
    finally:
        database.close()
    return count


@pytest.mark.parametrize("number", later([signal.SIGTERM], signal.SIGHUP))
def test_uploads_under_way_are_finished_or_fail_cleanly(
    service: Service, annotations: ReferenceService, number: signal.Signals
) -> None:
    assert service.process is not None
    annotations.control(fail={"delay": 3, "times": 10_000})  # so that messages are on their way at every moment
    go_on, uploads = threading.Event(), Uploads()
    bodies = [InTwoHalves(index, go_on, to_the_end=index % 6 != 5) for index in range(UPLOADS)]
    with ThreadPoolExecutor(UPLOADS) as clients:
        paths = ["/detect?name=photo.png" if index % 4 == 0 else "/media?name=photo.png" for index in range(UPLOADS)]
        answers = [clients.submit(send, service, body, path) for body, path in zip(bodies, paths, strict=True)]
        for body in bodies:
            assert body.begun.wait(30)
        for later in range(UPLOADS, UPLOADS + BACKLOG):
            uploads.send(service, "/media", photo(later))
        service.process.send_signal(number)
        go_on.set()
        note(uploads, bodies, answers)
    assert_ended(service, number)
    annotations.control(clear=True)
    if number == signal.SIGTERM:
        service.start()
    settle(service)
    assert_kept(service, annotations, [uploads])


def note(uploads: Uploads, bodies: list[InTwoHalves], answers: list[Future[requests.Response | None]]) -> None:
    """What was promised to whom; whoever sent everything must have been answered."""
    for index, (body, answered) in enumerate(zip(bodies, answers, strict=True)):
        answer = answered.result()
        if answer is None:
            assert index % 6 == 5, f"upload {index} was cut off by the service"
        elif answer.ok:
            uploads.promised[answer.json()["media"]["id"]] = body.content
        else:
            assert answer.status_code == 503, answer.text
            uploads.refused.append(answer.status_code)
    assert uploads.promised


def is_gone(group: int) -> bool:
    """Whether a process group has ended; the last of its dead are for init to bury, which may take a while."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def assert_ended(service: Service, number: signal.Signals) -> None:
    """After SIGTERM nothing of it is left, no process and no lease; after SIGHUP it goes on serving."""
    assert service.process is not None
    if number == signal.SIGHUP:
        assert service.request("GET", "/healthz").ok
        return
    assert service.process.wait(20) == 0  # what is on its way is waited for, the backlog behind it is not
    group = service.process.pid
    eventually(lambda: is_gone(group), "its last process to end")
    assert taken_down(service, "outbox_stream WHERE lease_owner IS NOT NULL") == 0
    assert taken_down(service, "detection_run WHERE lease_owner IS NOT NULL") == 0
    assert service.leftovers() == []


def test_a_second_of_idleness_is_all_that_an_end_takes_where_nothing_is_under_way(service: Service) -> None:
    assert service.process is not None
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0


def test_the_log_of_an_orderly_end_has_no_traceback(service: Service, tmp_path: Path) -> None:
    assert service.upload("/detect", photo(1), name="photo.png").status_code == 201
    service.stop()
    assert "Traceback" not in (tmp_path / "gunicorn.log").read_text()


@pytest.mark.long
def test_whoever_waits_for_a_run_is_told_that_it_was_accepted_before_the_server_ends(
    tmp_path: Path, sqlite_url: str
) -> None:
    service = Service(tmp_path, sqlite_url, None, DETECTION="off")  # no run ever ends
    try:
        service.start()
        with ThreadPoolExecutor(1) as client:
            answer = client.submit(service.upload, "/detect", photo(1), "photo.png")
            eventually(lambda: "detections_slots_taken 1.0" in service.request("GET", "/metrics").text)
            service.stop()
            assert answer.result().status_code == 202
            assert answer.result().json()["media"]["run"]["state"] == "queued"
    finally:
        service.stop()
    assert "was sent SIGKILL" not in service.log.read_text()
