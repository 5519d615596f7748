"""Stalled, dripping and idle clients: each is disconnected, and others are served meanwhile.

The tested server waits 0.5 s for a head, 1 s for a byte, and 2 s in total for an upload slower than 1 KiB/s.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.long import later
from tests.web.conftest import Server
from tests.web.raw_client import RawClient
from tests.web.upload.framings import FRAMINGS, Framing, chunked

pytestmark = [pytest.mark.slow, pytest.mark.alone]

PHOTO = bytes(100_000)
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
LINGERERS = {
    "nothing": b"",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: te",
    "half a second head": b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\nGET /healthz HTTP/1.1\r\nHost: te",
    "no HTTP": b"hello\r\n\r\n",
    "HTTP/1.0": b"GET /healthz HTTP/1.0\r\n\r\n",
    "refused body": b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000),
    "refused without its body": b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n",
}


@pytest.fixture
def clients(server: Server) -> Iterator[list[RawClient]]:
    """More clients than the server has threads."""
    with ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(200)]


def seconds_for_health(server: Server) -> float:
    started = time.monotonic()
    with server.connect() as client:
        client.send(HEALTH)
        assert client.answer().status == 200
    return time.monotonic() - started


@pytest.mark.parametrize("kind", later([*LINGERERS][:2], *[*LINGERERS][2:]))
def test_clients_that_stay_keep_nobody_else_waiting_and_are_let_go(
    server: Server, clients: list[RawClient], kind: str
) -> None:
    sent = LINGERERS[kind]
    for client in clients:
        client.send(sent)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert seconds_for_health(server) < 1
        time.sleep(0.05)
    for client in clients:
        client.sock.settimeout(5)
        client.everything()


def test_a_head_may_come_in_pieces(server: Server) -> None:
    with server.connect() as client:
        for start in range(0, len(HEALTH), 20):
            client.send(HEALTH[start : start + 20])
            time.sleep(0.01)
        assert client.answer().status == 200


def test_a_head_that_drips_is_not_waited_for(server: Server) -> None:
    with server.connect() as client:
        client.sock.settimeout(0.05)
        started = time.monotonic()
        closed = False
        while not closed and time.monotonic() - started < 8:
            client.send(b"X")
            try:
                closed = client.everything() == b""
            except TimeoutError:
                continue
    assert closed


def test_a_head_without_end_is_refused(server: Server) -> None:
    with server.connect() as client:
        client.send(b"GET /healthz HTTP/1.1\r\n" + b"X-Long: 1\r\n" * 10_000)
        assert client.everything().startswith(b"HTTP/1.1 431 ")


def test_clients_that_stop_inside_the_body_time_out(server: Server) -> None:
    stops = [
        framing.head(PHOTO) + framing.body(PHOTO)[:cut] for framing in FRAMINGS.values() for cut in places(framing)
    ]
    with ExitStack() as stack:
        stopped = [stack.enter_context(server.connect()) for _ in stops]
        for client, sent in zip(stopped, stops, strict=True):
            client.send(sent)
        started = time.monotonic()
        for client in stopped:
            assert client.answer().status == 408
            assert 0.5 < time.monotonic() - started < 6
            assert client.everything() == b""


def places(framing: Framing) -> list[int]:
    stops = ("nothing came", "in the data", "in the last boundary", "in a size line")
    return [cut for place, cut in framing.cuts(PHOTO).items() if place in stops]


@pytest.mark.long
def test_clients_that_drip_time_out_although_they_never_stop(server: Server) -> None:
    drops = {"form": b"x", "raw": b"x", "chunked raw": b"1\r\nx\r\n", "chunked form": b"0"}
    with ExitStack() as stack:
        dripping = {name: stack.enter_context(server.connect()) for name in drops}
        for name, client in dripping.items():
            client.send(FRAMINGS[name].head(PHOTO))
        started = time.monotonic()
        while time.monotonic() - started < 2.5:
            for name, client in dripping.items():
                client.send(drops[name])
            time.sleep(0.2)
        for client in dripping.values():
            client.sock.settimeout(3)
            assert client.line().startswith(b"HTTP/1.1 408 ")


@pytest.mark.long
@pytest.mark.parametrize("framing", ["raw", "chunked raw"])
def test_a_slow_client_that_goes_on_is_taken_in(server: Server, framing: str) -> None:
    content = bytes(20_000)
    body = FRAMINGS[framing].body(content)
    with server.connect() as client:
        client.send(FRAMINGS[framing].head(content))
        for start in range(0, len(body), 2_500):
            client.send(body[start : start + 2_500])
            time.sleep(0.3)
        assert client.answer().status == 200


def test_chunks_around_hardly_anything_buy_no_time(server: Server) -> None:
    with server.connect() as client:
        client.send(FRAMINGS["chunked raw"].head(PHOTO) + (b"1;" + b"x" * 1000 + b"\r\nx\r\n") * 6_000)
        answer = client.answer()
        assert answer.status == 400
        assert b"almost no data" in answer.body


@pytest.mark.long
def test_chunks_of_one_byte_are_taken_in(server: Server) -> None:
    content = bytes(1 << 20)
    request = FRAMINGS["chunked raw"].head(content) + chunked(content, 1)
    with server.connect() as client:
        client.send(request)
        assert client.answer().status == 200
