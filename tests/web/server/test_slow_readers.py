"""Slow readers: no thread waits without a slot, and every response is complete.

The tested server has sixteen threads and disconnects clients that read nothing for 3 s, or less than 64 KiB/s after 2
s.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.web.conftest import Server
from tests.web.raw_client import RawClient, slow_connection
from tests.web.server.test_idle_clients import seconds_for_health
from tests.web.upload.echo_upload import PATTERN

pytestmark = [pytest.mark.slow, pytest.mark.alone]

LENGTH = 1_000_000
READERS = 20


@contextmanager
def slow_reader(server: Server) -> Iterator[RawClient]:
    with slow_connection(server.port) as sock:
        yield RawClient(sock)


def request(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_readers_that_stand_still_keep_nobody_waiting_and_lose_nothing(server: Server, kind: str) -> None:
    with ExitStack() as stack:
        readers = [stack.enter_context(slow_reader(server)) for _ in range(READERS)]
        for reader in readers:
            reader.send(request(f"/{kind}/{LENGTH}"))
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            assert seconds_for_health(server) < 1
            time.sleep(0.05)
        for reader in readers[:3]:
            assert reader.answer().body == PATTERN[:LENGTH]
            reader.send(request("/bytes/10"))  # keep-alive
            assert reader.answer().body == PATTERN[:10]


@pytest.mark.parametrize("query", ["", "?slot"])
@pytest.mark.parametrize("kind", ["bytes", "file", "chunks"])
def test_an_answer_comes_whole_and_the_next_behind_it(server: Server, kind: str, query: str) -> None:
    with slow_reader(server) as reader:
        reader.send(request(f"/{kind}/{LENGTH}{query}") + request("/bytes/0", "HEAD") + request("/healthz"))
        time.sleep(0.2)
        if kind == "chunks":
            while reader.line():
                pass
            assert b"".join(chunks(reader)) == PATTERN[:LENGTH]
        else:
            assert reader.answer().body == PATTERN[:LENGTH]
        assert reader.line() == b"HTTP/1.1 200 OK"
        while reader.line():
            pass
        assert reader.answer().json() == {"path": "/healthz"}


def chunks(reader: RawClient) -> Iterator[bytes]:
    while length := int(reader.line(), 16):
        yield reader.take(length)
        assert reader.line() == b""
    assert reader.line() == b""


def test_readers_that_drip_are_cut_off_with_a_slot_and_without(server: Server) -> None:
    with slow_reader(server) as without, slow_reader(server) as with_slot:
        without.send(request(f"/file/{LENGTH}"))
        with_slot.send(request(f"/file/{LENGTH}?slot"))
        began = time.monotonic()
        reading = {without: 1, with_slot: 1}
        while any(reading.values()) and time.monotonic() - began < 20:
            time.sleep(0.1)
            reading = {reader: more and reader.receive(2000) for reader, more in reading.items()}
        assert 1.5 < time.monotonic() - began < 15


def test_who_is_refused_early_may_go_on_sending_and_reads_the_answer(server: Server) -> None:
    """Node's fetch fails if the connection is reset while it is writing."""
    body = bytes(300_000)
    with server.connect() as client:
        client.sock.sendall(f"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        time.sleep(0.2)
        for at in range(0, len(body), 30_000):
            client.sock.sendall(body[at : at + 30_000])
            time.sleep(0.01)
        assert client.answer().status == 401
        assert client.everything() == b""


def test_an_answer_under_way_at_shutdown_is_sent_to_its_end(tmp_path: Path) -> None:
    server = Server(tmp_path / "log")
    with slow_reader(server) as reader:
        reader.send(request(f"/file/{LENGTH}").replace(b"Host", b"Connection: close\r\nHost"))
        reader.sock.recv(1, socket.MSG_PEEK)
        server.terminate()
        time.sleep(0.3)
        assert reader.answer().body == PATTERN[:LENGTH]
        assert reader.everything() == b""
    assert server.stop() == 0
