"""The reference annotations service goes away like a pulled plug and comes back with all that it had."""

import gc
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import fork_server
from tests.reference.conftest import MEDIA_ID, SECRET, Sender, record
from tests.reference.loopback_server import LoopbackServer
from tests.reference.ordering import check_log
from tests.reference.service import ReferenceService

pytestmark = pytest.mark.slow

KEY = "0b9fb4f9-6a5f-4a3f-9c36-3d5f4ad1b111"


def test_a_connection_is_used_again(service: ReferenceService, sender: Sender) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(b"GET /_log HTTP/1.1\r\nHost: annotations\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_bytes_of_a_body_that_was_not_read_are_not_taken_for_a_request(service: ReferenceService) -> None:
    smuggled = b"GET /_log HTTP/1.1\r\nHost: annotations\r\n\r\n"
    head = b"POST /api/media HTTP/1.1\r\nHost: annotations\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(head + smuggled)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.count(b"HTTP/1.1 ") == 1


def test_a_stopped_service_refuses_connections_and_cuts_the_open_ones(
    service: ReferenceService, sender: Sender
) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as idle:
        sender.create()
        service.stop()
        assert idle.recv(1) == b""
    with pytest.raises(requests.ConnectionError, match="refused"):
        sender.status(2, seq=2)


def test_a_restarted_service_has_its_port_its_data_and_its_log_again(service: ReferenceService, sender: Sender) -> None:
    sender.create()
    url = service.url
    for _ in range(3):
        service.stop()
        service.stop()
        assert service.records() == [record()]
        service.start()
        service.start()
    assert service.url == url
    assert sender.status(2, seq=2).status_code == 200
    assert [entry["method"] for entry in service.log()] == ["POST", "PUT"]
    assert check_log(service.log()) == []


def test_nobody_can_take_the_port_of_a_stopped_service(service: ReferenceService) -> None:
    service.stop()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", service.port))


def test_a_service_can_be_given_its_port(service: ReferenceService, tmp_path: Path) -> None:
    service.close()
    with ReferenceService(tmp_path / "second.db", SECRET, port=service.port) as second:
        assert requests.get(f"{second.url}/_log", timeout=10).json() == []
        with pytest.raises(OSError, match="in use"):
            ReferenceService(tmp_path / "third.db", SECRET, port=service.port)


def test_a_request_that_is_waiting_when_the_service_stops_changes_nothing(
    service: ReferenceService, sender: Sender
) -> None:
    service.control(fail={"delay": 60})
    with ThreadPoolExecutor(1) as sending:
        answer = sending.submit(sender.create)
        service.wait_for(lambda entries: len(entries) == 1)
        service.stop()
        assert isinstance(answer.exception(), requests.ConnectionError)
    assert service.records() == []
    service.start()
    assert sender.create().status_code == 201


def test_planted_failures_outlive_an_outage(service: ReferenceService, sender: Sender) -> None:
    service.stop()
    service.control(fail={"status": 503})
    service.start()
    assert [sender.create(key=KEY).status_code for _ in range(2)] == [503, 201]


def test_a_stopped_service_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with ReferenceService(tmp_path / "annotations.db", SECRET) as service:
        requests.get(service.url, timeout=10)
        assert set(threading.enumerate()) - before
    assert set(threading.enumerate()) - before == set()


def test_waiting_for_what_never_comes_ends_with_the_log(service: ReferenceService) -> None:
    with pytest.raises(TimeoutError, match="the log"):
        service.wait_for(lambda entries: len(entries) == 1, seconds=0.05)


def test_many_senders_at_once_are_all_served(service: ReferenceService) -> None:
    def send(number: int) -> int:
        with requests.Session() as session:
            session.trust_env = False
            own = Sender(service.url, session)
            media_id = f"{number:016x}"
            answers = [own.create(record(media_id)), own.status(2, seq=2, media_id=media_id)]
            return sum(answer.ok for answer in answers)

    with ThreadPoolExecutor(8) as sending:
        assert sum(sending.map(send, range(24))) == 48
    assert len(service.records()) == 24
    assert check_log(service.log()) == []


def test_a_client_that_hangs_up_disturbs_nobody(
    service: ReferenceService, sender: Sender, capfd: pytest.CaptureFixture[str]
) -> None:
    service.control(fail={"delay": 0.1, "match": {"method": "GET"}})
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as client:
        client.sendall(b"GET /api/media HTTP/1.1\r\nHost: annotations\r\n\r\nGET ")
        service.wait_for(lambda entries: len(entries) == 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
    service.wait_for(lambda entries: entries[0]["status"] is not None)
    assert sender.create().status_code == 201
    service.stop()
    gc.collect()  # a socket that was left open fails this test, and not one that comes later
    assert capfd.readouterr() == ("", "")


def test_the_server_serves_any_small_application() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Date", "Thu, 01 Jan 1970 00:00:00 GMT")])
        return [environ["REQUEST_METHOD"].encode(), environ["wsgi.input"].read()]

    server = LoopbackServer("127.0.0.1", 0, application)
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        answer = requests.put(url, data=b" it", timeout=10)
        assert answer.text == "PUT it"
        assert answer.headers["Date"] == "Thu, 01 Jan 1970 00:00:00 GMT"
        assert requests.head(url, timeout=10).content == b""
    finally:
        server.stop()


def test_an_application_that_breaks_is_shown_and_the_server_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise RuntimeError(f"cannot {environ['PATH_INFO']}")

    server = LoopbackServer("127.0.0.1", 0, application)
    try:
        for path in ("/one", "/two"):
            with pytest.raises(requests.ConnectionError):
                requests.get(f"http://127.0.0.1:{server.server_port}{path}", timeout=10)
    finally:
        server.stop()
    shown = capfd.readouterr().err
    assert "RuntimeError: cannot /one" in shown
    assert "RuntimeError: cannot /two" in shown


def start_process(database: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "app.demo.annotations", "--database", str(database), *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANNOTATIONS_")}
    return fork_server.Popen(
        command, env=clean | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", process.stdout.readline())
    assert said is not None
    return said[1]


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out + err


def test_as_a_process_it_serves_until_told_to_end_and_says_nothing_else(tmp_path: Path, sender: Sender) -> None:
    process = start_process(tmp_path / "process.db", ANNOTATIONS_SECRET=SECRET, ANNOTATIONS_TOKEN="machine-token")
    try:
        elsewhere = Sender(url_of(process), sender.session)
        assert elsewhere.create().status_code == 201
        assert elsewhere.send("GET", "/api/media", headers={"Authorization": "Bearer machine-token"}).ok
        assert end(process, signal.SIGTERM) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_a_killed_process_starts_again_with_what_it_had(tmp_path: Path, sender: Sender) -> None:
    process = start_process(tmp_path / "process.db", ANNOTATIONS_SECRET=SECRET)
    try:
        url = url_of(process)
        assert Sender(url, sender.session).create().status_code == 201
        assert end(process, signal.SIGKILL)[0] == -signal.SIGKILL
        process = start_process(tmp_path / "process.db", "--port", url.rpartition(":")[2], ANNOTATIONS_SECRET=SECRET)
        assert url_of(process) == url
        assert Sender(url, sender.session).send("GET", f"/api/media/{MEDIA_ID}").json() == record()
        assert [entry["applied"] for entry in requests.get(f"{url}/_log", timeout=10).json()] == [True, False]
        assert end(process, signal.SIGINT)[0] == 0
    finally:
        process.kill()
        process.communicate()


def test_a_process_without_a_secret_or_with_a_taken_port_says_so_and_ends(
    service: ReferenceService, tmp_path: Path
) -> None:
    without = start_process(tmp_path / "process.db")
    out, err = without.communicate(timeout=20)
    assert without.returncode == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "ANNOTATIONS_SECRET" in err
    taken = start_process(tmp_path / "process.db", "--port", str(service.port), ANNOTATIONS_SECRET=SECRET)
    out, err = taken.communicate(timeout=20)
    assert taken.returncode == 1
    assert out == ""
    assert str(service.port) in err
