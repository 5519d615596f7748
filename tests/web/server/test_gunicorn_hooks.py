"""The hooks' effects on sockets, and uploads under TLS through gunicorn's reader."""

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.web.server.gunicorn_hooks import limit_waits
from tests.servers.certificates import write_certificate
from tests.web.conftest import Server
from tests.web.raw_client import RawClient, slow_connection
from tests.web.upload.echo_upload import PATTERN
from tests.web.upload.framings import FRAMINGS, Framing

pytestmark = pytest.mark.slow

PHOTO = bytes(range(256)) * 800
framings = pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS.keys())


def test_accepted_connections_inherit_the_limits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        limit_waits([listener], receive=2.5, send=30)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            receive = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
            send = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
            assert struct.unpack("ll", receive) == (2, 500_000)
            assert struct.unpack("ll", send) == (30, 0)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_a_blocking_read_ends_at_its_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        limit_waits([listener], receive=0.05, send=30)
        client = socket.create_connection(listener.getsockname())
        with client, listener.accept()[0] as accepted, pytest.raises(BlockingIOError):
            accepted.recv(1)


def test_unix_sockets_are_limited_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        limit_waits([listener], receive=2, send=30)
        assert struct.unpack("ll", listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)) == (2, 0)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, ssl.SSLContext]]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = write_certificate(folder)
    server = Server(folder / "log", "--certfile", certificate, "--keyfile", key)
    yield server, ssl.create_default_context(cafile=certificate)
    server.stop()


def connect(tls: tuple[Server, ssl.SSLContext]) -> RawClient:
    server, context = tls
    plain = slow_connection(server.port)
    return RawClient(context.wrap_socket(plain, server_hostname="127.0.0.1"))


@framings
def test_uploads_under_tls_arrive_one_after_another(tls: tuple[Server, ssl.SSLContext], framing: Framing) -> None:
    with connect(tls) as client:
        for content in (PHOTO, b"small", PHOTO):
            client.send(framing.request(content))
            answer = client.answer()
            assert answer.status == 200
            assert answer.json()["length"] == len(content)


@framings
def test_a_client_that_stops_under_tls_times_out(tls: tuple[Server, ssl.SSLContext], framing: Framing) -> None:
    with connect(tls) as client:
        client.send(framing.request(PHOTO)[:100_000])
        assert client.answer().status == 408


@framings
def test_a_refused_client_under_tls_is_not_invited_to_send(
    tls: tuple[Server, ssl.SSLContext], framing: Framing
) -> None:
    with connect(tls) as client:
        client.send(framing.head(PHOTO, token=b"Expect: 100-continue\r\n"))
        assert client.answer().status == 401


def test_answers_under_tls_come_whole(tls: tuple[Server, ssl.SSLContext]) -> None:
    with connect(tls) as client:
        for kind in ("bytes", "file"):
            client.send(f"GET /{kind}/3000000 HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            time.sleep(0.5)
            assert client.answer().body == PATTERN[:3_000_000]


def test_a_reader_that_drips_under_tls_is_cut_off(tls: tuple[Server, ssl.SSLContext]) -> None:
    with connect(tls) as client:
        client.send(b"GET /bytes/3000000 HTTP/1.1\r\nHost: test\r\n\r\n")
        began = time.monotonic()
        while client.receive(2000) and time.monotonic() - began < 20:
            time.sleep(0.1)
        assert 1.5 < time.monotonic() - began < 15
