"""docs/deploy/nginx.conf in a real nginx, with the service behind it: what it lets through, hides, and logs."""

import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.servers.certificates import write_certificate
from tests.servers.nginx import Nginx
from tests.servers.ports import free_port
from tests.system.service import Service, token
from tests.web.raw_client import Answer, RawClient

NAME = "detections.example"
PHOTO = ROOT / "app" / "demo" / "media" / "astronaut.jpg"
OPERATOR, ANYBODY, CROWD = "127.0.0.1", "127.0.0.2", "127.0.0.3"
LARGE = 40 << 20
LARGEST = b"GET /docs/swagger-ui-bundle.js"


@dataclass(frozen=True)
class Proxied:
    """nginx as documented, but for its port, its paths and the address of the service."""

    nginx: Nginx
    service: Service
    port: int
    trust: Path

    def connect(self, address: str, *, name: str = NAME, window: int | None = None) -> RawClient:
        """A client at that address of this machine; `window` is how many bytes it takes unread."""
        plain = socket.socket()
        try:
            if window:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            plain.settimeout(20)
            plain.bind((address, 0))
            plain.connect(("127.0.0.1", self.port))
            context = ssl.create_default_context(cafile=str(self.trust))
            return RawClient(context.wrap_socket(plain, server_hostname=name))
        except BaseException:
            plain.close()
            raise

    def ask(self, line: bytes, address: str = ANYBODY, *fields: bytes, host: str = NAME, body: bytes = b"") -> Answer:
        with self.connect(address) as client:
            client.send(request(line, *fields, host=host, body=body))
            return client.answer()


def request(line: bytes, *fields: bytes, host: str = NAME, body: bytes = b"") -> bytes:
    bearer = f"Authorization: Bearer {token('ada')}".encode()
    length = f"Content-Length: {len(body)}".encode()
    lines = [line + b" HTTP/1.1", f"Host: {host}".encode(), bearer, b"Connection: close", length, *fields, b""]
    return b"\r\n".join(lines) + b"\r\n" + body


def documented(folder: Path, port: int, upstream: str, certificate: str, key: str) -> str:
    """The file as it is, but for what differs on every machine."""
    servers = (ROOT / "docs" / "deploy" / "nginx.conf").read_text()
    for there, here in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "127.0.0.1:8000": upstream,
        "/etc/ssl/detections.pem": certificate,
        "/etc/ssl/detections.key": key,
        "/var/log/nginx/": f"{folder}/",
    }.items():
        assert there in servers
        servers = servers.replace(there, here)
    return servers


@contextmanager
def behind_nginx(folder: Path) -> Iterator[Proxied]:
    """The service on the database in the folder, behind the documented proxy."""
    certificate, key = write_certificate(folder, NAME)
    port = free_port()
    with ExitStack() as stack:
        service = Service(folder, f"sqlite:///{folder}/detections.db", None, DETECTION="off")
        stack.callback(service.kill)
        stack.callback(service.stop)
        service.start()
        servers = documented(folder, port, service.url.removeprefix("http://"), certificate, key)
        nginx = stack.enter_context(Nginx(folder, servers, port))
        yield Proxied(nginx, service, port, Path(certificate))


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copy(sqlite_template, folder / "detections.db")
    with behind_nginx(folder) as proxied:
        yield proxied


def test_an_upload_and_what_came_of_it_pass_through(proxied: Proxied) -> None:
    answer = proxied.ask(b"POST /media?name=a.jpg", ANYBODY, b"Content-Type: image/jpeg", body=PHOTO.read_bytes())
    assert answer.status == 201
    media_id = answer.json()["media"]["id"]
    assert proxied.ask(f"GET /media/{media_id}".encode()).json()["name"] == "a.jpg"
    assert proxied.ask(f"GET /media/{media_id}/content".encode()).body == PHOTO.read_bytes()


@pytest.mark.parametrize(
    "path", [b"GET /metrics", b"GET /readyz", b"GET //metrics", b"GET /x/../readyz", b"GET /%6detrics"]
)
def test_metrics_and_readiness_are_for_the_operators_network_alone(proxied: Proxied, path: bytes) -> None:
    answer = proxied.ask(path, ANYBODY)
    assert answer.status == 403
    assert b"detections_" not in answer.body


@pytest.mark.parametrize("path", [b"GET /metrics?x=1", b"GET /readyz"])
def test_the_operator_sees_metrics_and_readiness(proxied: Proxied, path: bytes) -> None:
    with proxied.connect(OPERATOR) as client:
        client.send(request(path))
        assert client.line() == b"HTTP/1.1 200 OK"
    assert proxied.ask(b"GET /healthz", ANYBODY).status == 200


def test_another_host_gets_nothing(proxied: Proxied) -> None:
    for host in ("evil.example", f"{NAME}.evil.example", "127.0.0.1", f"evil.example:{proxied.port}"):
        answer = proxied.ask(b"GET /healthz", host=host)
        assert answer.status == 421
        assert b"alive" not in answer.body
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        proxied.connect(ANYBODY, name="evil.example")


def test_no_log_has_a_links_signature_whether_the_service_answers_or_not(proxied: Proxied) -> None:
    stored = proxied.ask(
        b"POST /media?name=b.jpg", ANYBODY, b"Content-Type: image/jpeg", body=PHOTO.read_bytes() + b"b"
    )
    media_id = stored.json()["media"]["id"]
    url = proxied.ask(f"POST /media/{media_id}/link".encode()).json()["url"]
    signature = url.partition("signature=")[2]
    assert proxied.ask(f"GET {url}".encode()).status == 200
    assert proxied.ask(f"GET {url}x".encode()).status == 401
    proxied.service.stop()
    try:
        assert proxied.ask(f"GET {url}".encode()).status == 502
    finally:
        proxied.service.start("-b", proxied.service.url.removeprefix("http://"))
    logs = [*proxied.nginx.folder.glob("*.log")]
    assert f'"GET /media/{media_id}/content HTTP/1.1" 502' in proxied.nginx.logged("detections.log")
    assert [path.name for path in logs if signature in path.read_text(errors="replace")] == []


def test_the_services_log_names_the_client_and_not_the_proxy(proxied: Proxied) -> None:
    fields = (b"X-Request-Id: through-nginx", b"X-Forwarded-For: 192.0.2.1")
    assert proxied.ask(b"GET /me", ANYBODY, *fields).status == 200
    log = proxied.service.log.read_text(errors="replace").splitlines()
    [line] = [json.loads(line) for line in log if "through-nginx" in line]
    assert line["client"] == ANYBODY


def test_events_come_while_the_run_goes_on(proxied: Proxied) -> None:
    content = PHOTO.read_bytes() + b"events"
    fields = (b"Content-Type: image/jpeg", b"Prefer: respond-async")
    queued = proxied.ask(b"POST /detect?name=c.jpg", ANYBODY, *fields, body=content).json()["media"]  # and stays so
    with proxied.connect(ANYBODY) as client:
        client.send(request(f"GET /media/{queued['id']}/events".encode()))
        assert client.line() == b"HTTP/1.1 200 OK"
        assert any(b"event: status" in client.line() for _ in range(40))


@pytest.mark.parametrize(("path", "is_taken_off"), [("/media/x/detections", True), ("/media/x/content", False)])
def test_an_answer_is_taken_off_the_service_at_once_but_for_files(
    proxied: Proxied, tmp_path: Path, path: str, is_taken_off: bool
) -> None:
    """A service whose answer exceeds what the kernel holds, and a client that reads nothing of it."""
    sent = threading.Event()
    port, key = free_port(), str(proxied.trust.with_name("key.pem"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = f"127.0.0.1:{listener.getsockname()[1]}"

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.settimeout(8)
                with suppress(OSError):  # the test has ended
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE))
                    sent.set()

        thread = threading.Thread(target=answer_once)
        thread.start()
        servers = documented(tmp_path, port, upstream, str(proxied.trust), key)
        with Nginx(tmp_path, servers, port), replace(proxied, port=port).connect(ANYBODY, window=4096) as client:
            client.send(request(f"GET {path}".encode()))
            assert sent.wait(5 if is_taken_off else 1) == is_taken_off
        thread.join(20)


@pytest.mark.alone
def test_a_crowd_that_does_not_read_keeps_nobody_else_from_being_served(proxied: Proxied) -> None:
    """Of one address a hundred are let in, and another one for each whose answer the kernel has taken."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(proxied.connect(CROWD, window=4096)) for _ in range(105)]
        for client in crowd:
            client.send(request(LARGEST))
        statuses = [client.line().split()[1] for client in crowd]
        assert 100 <= statuses.count(b"200") < 105
        assert statuses.count(b"200") + statuses.count(b"503") == 105
        started = time.monotonic()
        assert proxied.ask(b"GET /healthz", ANYBODY).status == 200
        assert proxied.service.request("GET", "/healthz").ok
        assert time.monotonic() - started < 10  # else they wait until the crowd is cut off
