"""What gunicorn refuses before the application sees it, and what no Host and no path may bring about."""

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.web.security_headers import HEADERS
from tests.system.service import Service
from tests.web.raw_client import Answer, RawClient

SUITE, STRANGER = "https://suite.example", "https://evil.example"
SIGNATURE = "WyIzMTJiMzY1Yjk1YzU4MzY0IiwiYWRhIl0"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("refusals")
    shutil.copy(sqlite_template, folder / "detections.db")
    service = Service(folder, f"sqlite:///{folder}/detections.db", None, CORS_ORIGINS=SUITE)
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


def ask(service: Service, request: bytes) -> Answer:
    address = urlsplit(service.url)
    with RawClient(socket.create_connection((address.hostname, address.port), timeout=20)) as client:
        client.send(request)
        return client.answer()


def headers_of(answer: Answer) -> dict[str, str]:
    lines = (line.partition(b":") for line in answer.head.split(b"\n"))
    return {name.decode(): value.strip().decode() for name, _, value in lines}


def head(line: bytes, *fields: bytes, origin: str = SUITE) -> bytes:
    return b"\r\n".join([line, b"Origin: " + origin.encode(), *fields, b"", b""])


HOST = b"Host: detections.example"
LONG = b"X: " + b"x" * 1_000
REFUSED: dict[str, tuple[int, str, tuple[bytes, ...]]] = {
    "no HTTP": (400, "bad-request", (b"hello", HOST)),
    "a version to come": (400, "bad-request", (b"GET / HTTP/9.9", HOST)),
    "a method in lower case": (400, "bad-request", (b"get / HTTP/1.1", HOST)),
    "a target that is not ASCII": (400, "bad-request", ("GET /ä HTTP/1.1".encode(), HOST)),
    "a header without a name": (400, "bad-request", (b"GET / HTTP/1.1", HOST, b": x")),
    "a folded header": (400, "bad-request", (b"GET / HTTP/1.1", HOST, b"X: a", b" b")),
    "two lengths": (400, "bad-request", (b"POST /media HTTP/1.1", HOST, b"Content-Length: 1", b"Content-Length: 2")),
    "a line too long": (414, "uri-too-long", (b"GET /?" + b"x" * 9_000 + b" HTTP/1.1", HOST)),
    "a field too long": (431, "request-header-fields-too-large", (b"GET / HTTP/1.1", HOST, b"X: " + b"x" * 17_000)),
    "too many fields": (431, "request-header-fields-too-large", (b"GET / HTTP/1.1", HOST, *[b"X: x"] * 70)),
    "a head too long": (431, "request-header-fields-too-large", (b"GET / HTTP/1.1", HOST, *[LONG] * 70)),
    "an unknown expectation": (417, "expectation-failed", (b"GET / HTTP/1.1", HOST, b"Expect: wonders")),
    "an unknown coding": (501, "not-implemented", (b"POST /media HTTP/1.1", HOST, b"Transfer-Encoding: gzip, wonders")),
    "no host": (400, "bad-request", (b"GET /healthz HTTP/1.1",)),
    "two hosts": (400, "bad-request", (b"GET /healthz HTTP/1.1", HOST, b"Host: evil.example")),
    "a host with a path": (400, "bad-request", (b"GET /healthz HTTP/1.1", b"Host: a/b")),
    "a host with a user": (400, "bad-request", (b"GET /healthz HTTP/1.1", b"Host: a@b")),
    "a host with a space": (400, "bad-request", (b"GET /healthz HTTP/1.1", b"Host: a b")),
    "half an address": (400, "bad-request", (b"GET /healthz HTTP/1.1", b"Host: [::1")),
    "a port of letters": (400, "bad-request", (b"GET /healthz HTTP/1.1", b"Host: a:b")),
    "a malformed host in HTTP/1.0": (400, "bad-request", (b"GET /healthz HTTP/1.0", b"Host: a/b")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_server_refuses_is_a_problem_with_the_headers_of_every_answer(service: Service, case: str) -> None:
    status, name, lines = REFUSED[case]
    answer = ask(service, head(*lines))
    assert answer.status == status
    headers = headers_of(answer)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    problem = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail", "requestId"}
    assert problem["type"] == f"urn:detections:problem:{name}"
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["requestId"] == headers["x-request-id"]
    assert {header: headers[header.lower()] for header in HEADERS} == {k: v.lower() for k, v in HEADERS.items()}
    assert headers["access-control-allow-origin"] == SUITE
    assert "x-request-id" in headers["access-control-expose-headers"]


@pytest.mark.parametrize("case", ["a version to come", "a line too long", "a head too long", "no host"])
def test_a_page_of_another_origin_cannot_read_what_the_server_refuses(service: Service, case: str) -> None:
    status, _, lines = REFUSED[case]
    for origin in (STRANGER, f"{SUITE}.evil.example", "null", ""):
        answer = ask(service, head(*lines, origin=origin))
        assert answer.status == status
        assert not [name for name in headers_of(answer) if name.startswith("access-control")]
        assert headers_of(answer)["vary"] == "origin"


def test_an_origin_in_a_body_is_nobody_s_origin(service: Service) -> None:
    answer = ask(service, b"GET / HTTP/9.9\r\nHost: a\r\n\r\nOrigin: " + SUITE.encode() + b"\r\n\r\n")
    assert "access-control-allow-origin" not in headers_of(answer)


def test_the_id_of_a_refusal_leads_to_a_line_of_the_log_that_names_the_client_and_no_signature(
    service: Service,
) -> None:
    answer = ask(service, head(b"GET /media/x/content?signatur%65=" + SIGNATURE.encode() + b" HTTP/9.9", HOST))
    log = service.log.read_text(errors="replace")
    [line] = [json.loads(line) for line in log.splitlines() if answer.json()["requestId"] in line]
    assert line["event"] == "refused_by_server"
    assert line["status"] == 400
    assert line["client"] == "127.0.0.1"
    assert SIGNATURE not in log


@pytest.mark.parametrize("host", [b"Host: detections.example", b"Host: [::1]:8000", b"Host: a.b:80", b"Host:"])
def test_any_well_formed_host_is_taken(service: Service, host: bytes) -> None:
    assert ask(service, head(b"GET /healthz HTTP/1.1", host)).status == 200


def test_http_1_0_needs_no_host(service: Service) -> None:
    assert ask(service, head(b"GET /healthz HTTP/1.0")).status == 200


PATHS = (
    b"//media",
    b"/media//0123456789abcdef?signature=" + SIGNATURE.encode(),
    b"/media/0123456789abcdef//content?signature=" + SIGNATURE.encode(),
    b"//evil.example/media",
    b"/docs//",
    b"/static//js/main.js",
    b"/detect//",
    b"/%2F%2Fevil.example",
    b"/media/",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
def test_no_path_and_no_host_is_ever_redirected(service: Service, path: bytes, method: bytes) -> None:
    request = (
        method + b" " + path + b" HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    address = urlsplit(service.url)
    with RawClient(socket.create_connection((address.hostname, address.port), timeout=20)) as client:
        client.send(request)
        answer = client.everything()
    assert answer.startswith(b"HTTP/1.1 404 ")
    lines = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"location:" not in lines
    assert b"evil" not in lines
    assert SIGNATURE.encode() not in answer
