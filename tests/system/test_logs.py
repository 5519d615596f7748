"""What the log tells of one upload, from its request to the last try to deliver, and what it never tells."""

import json
import logging
import re
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.web.server.redaction import WithoutSignatures
from tests.eventually import eventually
from tests.paths import PHOTOS
from tests.reference.service import ReferenceService
from tests.system.promise import photo
from tests.system.service import SECRET, Service, token

PHOTO = PHOTOS / "astronaut.jpg"
TRACE = "one-upload.2026"


def lines(service: Service) -> list[dict[str, Any]]:
    """Every line, gunicorn's own included."""
    return [json.loads(line) for line in service.log.read_text(errors="replace").splitlines()]


def of_trace(service: Service, event: str) -> list[dict[str, Any]]:
    return [line for line in lines(service) if line.get("request_id") == TRACE and line["event"] == event]


def wait_for(service: Service, event: str, count: int) -> list[dict[str, Any]]:
    eventually(lambda: len(of_trace(service, event)) >= count, f"{count} lines of {event}")
    return of_trace(service, event)


def test_one_id_leads_from_the_upload_through_the_run_to_every_try_to_deliver(
    tmp_path: Path, sqlite_url: str, annotations: ReferenceService
) -> None:
    service = Service(tmp_path, sqlite_url, annotations.url, LOG_LEVEL="debug")
    try:
        _follow_one_upload(service.start(), annotations)
    finally:
        service.stop()
        service.kill()
    assert len(lines(service)) > 10  # every one of them, gunicorn's own included, is JSON


def _follow_one_upload(service: Service, annotations: ReferenceService) -> None:
    annotations.control(fail={"status": 500, "times": 2})  # so that some tries have to be repeated
    told = {"X-Request-Id": TRACE, "X-Forwarded-For": "192.0.2.1, 198.51.100.7"}  # as a proxy on this machine does
    answer = service.upload("/detect", PHOTO, headers=told)
    assert answer.status_code == 201
    media_id = answer.json()["media"]["id"]
    arrived = annotations.wait_for(lambda entries: sum(entry["applied"] for entry in entries) == 3)
    deliveries = wait_for(service, "delivery", 5)
    [request] = of_trace(service, "request")
    assert request["method"] == "POST"
    assert request["path"] == "/detect"
    assert request["status"] == 201
    assert request["user"] == "ada"
    assert request["client"] == "198.51.100.7"
    [started], [ended] = of_trace(service, "run_started"), wait_for(service, "run_ended", 1)
    assert started["run_id"] == ended["run_id"] == answer.json()["media"]["run"]["id"]
    assert {line["media_id"] for line in (started, ended, *deliveries)} == {media_id}
    assert [line["seq"] for line in deliveries if line["verdict"] == "delivered"] == [1, 2, 3]
    assert all({"kind", "status", "detail", "milliseconds"} <= line.keys() for line in deliveries)
    assert {entry["requestId"] for entry in arrived} == {TRACE}
    times = [line["timestamp"] for line in (started, ended)]
    assert times == sorted(times)


def test_no_secret_no_token_and_no_signature_is_ever_logged(tmp_path: Path, sqlite_url: str) -> None:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as annotations:
        service = Service(tmp_path, sqlite_url, annotations.url, LOG_LEVEL="debug")
        try:
            service.start("--access-logfile", "-")
            media = service.upload("/detect", PHOTO, headers={"X-Request-Id": TRACE}).json()["media"]
            url = service.request("POST", f"/media/{media['id']}/link").json()["url"]
            signature = url.partition("signature=")[2]
            assert len(signature) > 50
            for target in (
                url,
                f"{url}x",
                f"/media/{media['id']}?signature={signature}",
                f"/x?s%69gnatur%65={signature}",
            ):
                service.request("GET", target, headers={"Authorization": "Bearer " + token("ada") + "x"})
            address = urlsplit(service.url)
            with socket.create_connection((address.hostname, address.port)) as client:  # what gunicorn itself refuses
                client.sendall(f"GET {url} HTTP/9.9\r\n\r\n".encode())
                client.recv(1000)
            wait_for(service, "delivery", 3)
        finally:
            service.stop()
            service.kill()
    log = service.log.read_text(errors="replace")
    # The access log that was asked for has the rest of the line.
    assert any("/content?… HTTP/1.1" in line["event"] for line in lines(service))
    assert signature not in log
    assert signature[-20:] not in log
    assert SECRET not in log
    assert "eyJ" not in log  # how every token begins


def test_logs_for_people_have_a_line_for_each_event_and_only_of_the_level_asked_for(
    tmp_path: Path, sqlite_url: str
) -> None:
    service = Service(tmp_path, sqlite_url, None, LOG_FORMAT="text")
    try:
        service.start()
        service.request("GET", "/media/two%0Alines%22", headers={"X-Request-Id": TRACE})
        service.stop()
        [line] = [line for line in service.log.read_text().splitlines() if TRACE in line]
        assert re.fullmatch(r"[-0-9T:.]+Z info    request .*method=GET.* status=404 .*", line)
        assert 'path="/media/two\\nlines\\""' in line
        service.environment |= {"LOG_LEVEL": "warning"}
        service.start("--log-level", "info")  # gunicorn's own, which say where it listens
        service.request("GET", "/media", headers={"X-Request-Id": "of-a-quiet-log"})
    finally:
        service.stop()
        service.kill()
    assert "of-a-quiet-log" not in service.log.read_text()


def test_a_signature_is_taken_out_of_whatever_gunicorn_says_of_a_request() -> None:
    clean = WithoutSignatures()
    said = (
        ("Error handling request %s %s", ("GET", "/media/1/content?a=1&signature=hidden&b=2")),
        ("Invalid request: b'GET /x?signature=hidden HTTP/9.9'", ()),
        ('"%(r)s" %(s)s', ({"r": "GET /x?signature=hidden HTTP/1.1", "s": 200},)),
        ("GET /x?signatur%65=hidden&b=2 and %73ignature=hidden", ()),
        ("%s", ("/x?a=1&%73%69gnature=hidden",)),
        ("%s left", (3,)),
    )
    told = []
    for message, arguments in said:
        record = logging.LogRecord("gunicorn.error", logging.INFO, "x", 1, message, arguments, None)
        assert clean.filter(record)
        told.append(record.getMessage())
    assert told == [
        "Error handling request GET /media/1/content?a=1&signature=…&b=2",
        "Invalid request: b'GET /x?signature=… HTTP/9.9'",
        '"GET /x?signature=… HTTP/1.1" 200',
        "GET /x?signatur%65=…&b=2 and %73ignature=…",
        "/x?a=1&%73%69gnature=…",
        "3 left",
    ]


def test_an_upload_leaves_four_lines_at_most_where_all_is_well(service: Service, annotations: ReferenceService) -> None:
    assert service.upload("/detect", PHOTO, headers={"X-Request-Id": TRACE}).status_code == 201
    annotations.wait_for(lambda entries: sum(entry["applied"] for entry in entries) == 3)
    wait_for(service, "run_ended", 1)
    assert len([line for line in lines(service) if line.get("request_id") == TRACE]) <= 4


@pytest.mark.long
def test_a_log_whose_reader_has_gone_stops_nothing(tmp_path: Path, sqlite_url: str) -> None:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as annotations:
        service = Service(tmp_path, sqlite_url, annotations.url)
        reader = f'exec "$@" > >(sed -u 5q >> {service.log}) 2>&1'
        try:
            service.start(wrapper=("bash", "-c", reader, "bash"))
            for number in range(5):
                assert service.upload("/media", photo(number), name="a.png").status_code == 201
            assert service.upload("/detect", PHOTO).status_code == 201
            annotations.wait_for(lambda entries: sum(entry["applied"] for entry in entries) == 8)
            assert service.request("GET", "/readyz").status_code == 200
            metrics = service.request("GET", "/metrics").text
        finally:
            service.stop()
            service.kill()
    [lost] = re.findall(r"^detections_log_lines_lost_total ([0-9.]+)$", metrics, re.MULTILINE)
    assert float(lost) >= 5


def test_a_log_that_was_renamed_goes_on_in_a_new_file_at_sigusr1(tmp_path: Path, sqlite_url: str) -> None:
    service = Service(tmp_path, sqlite_url, None)
    kept = tmp_path / "kept.log"
    try:
        service.start()
        assert service.process is not None
        service.log.rename(kept)
        service.process.send_signal(signal.SIGUSR1)
        eventually(
            lambda: service.request("GET", "/media") and service.log.exists() and "/media" in service.log.read_text()
        )
    finally:
        service.stop()
        service.kill()
    assert all(json.loads(line) for line in service.log.read_text().splitlines())
