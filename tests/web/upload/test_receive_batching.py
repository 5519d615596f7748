"""Bodies of fast clients over TCP are received in larger chunks, without losing bytes, waiting too long or reading too
far.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import SocketUnreader

from app.errors import MalformedUpload, UploadTimedOut
from app.process.timeval import timeval
from app.web.server.gunicorn_internals import is_off_the_connection
from app.web.upload.receive_batching import AFTER_BYTES, GATHERED_BYTES, MOST_SECONDS
from app.web.upload.receive_timeouts import Pace
from app.web.upload.request_body import BodySource, open_source

USUAL = timeval(7)
LARGE = AFTER_BYTES + 64 * GATHERED_BYTES


class Noting(socket.socket):
    """A socket that records changed options."""

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(fileno=accepted.detach())
        self.changes: list[tuple[Any, ...]] = []

    def setsockopt(self, *change: Any) -> None:
        self.changes.append(change)
        super().setsockopt(*change)


@dataclass
class Upload:
    """A body sent over loopback, and what was received of it so far."""

    server: "Noting"
    client: socket.socket
    body: Any
    source: BodySource
    pieces: list[bytes] = field(default_factory=list)

    def receive(self, until: int | None = None) -> None:
        """Receive until the end, or until that many bytes have arrived."""
        while (until is None or sum(map(len, self.pieces)) < until) and (piece := self.source.read()):
            self.pieces.append(bytes(piece))

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def options(self) -> tuple[int, bytes]:
        return (
            self.server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT),
            self.server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, len(USUAL)),
        )


@contextmanager
def upload(length: int, idle_timeout: float = 20.0) -> Iterator[Upload]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, USUAL)
    with client, Noting(accepted) as server:
        body = Body(LengthReader(SocketUnreader(server), length))
        environ = {"wsgi.input": body, "CONTENT_LENGTH": str(length)}
        pace = Pace(idle_timeout, grace=60.0, bytes_per_second=1000.0)
        yield Upload(server, client, body, open_source(environ, pace))


@contextmanager
def sending(client: socket.socket, *parts: bytes, pause: float = 0.0) -> Iterator[None]:
    def send() -> None:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)


def test_of_a_fast_client_pieces_are_large_and_what_follows_the_body_stays() -> None:
    content = bytes(range(256)) * (LARGE // 256)
    with upload(len(content)) as it:
        with sending(it.client, *(content[at : at + 8192] for at in range(0, LARGE, 8192)), b"next"):
            it.receive()
        assert it.received == content
        assert is_off_the_connection(it.body)
        assert it.options == (1, USUAL)
        assert it.server.recv(100) == b"next"
        assert sum(len(piece) >= GATHERED_BYTES for piece in it.pieces) >= 8, [len(piece) for piece in it.pieces]


def test_a_body_that_ends_with_a_whole_piece_leaves_the_connection_as_it_was() -> None:
    with upload(LARGE) as it:
        with sending(it.client, bytes(LARGE - GATHERED_BYTES)):
            it.receive(LARGE - GATHERED_BYTES)
        with sending(it.client, bytes(GATHERED_BYTES)):
            it.receive()
        assert it.received == bytes(LARGE)
        assert it.options == (1, USUAL)


def test_a_client_that_slows_down_is_read_from_as_its_bytes_come() -> None:
    beginning, dribble = bytes(AFTER_BYTES + 4 * GATHERED_BYTES), [b"%d" % number for number in range(10)]
    with upload(len(beginning) + LARGE) as it:
        with sending(it.client, beginning):
            it.receive(len(beginning))
        with sending(it.client, *dribble, pause=0.03):
            it.receive(len(beginning) + 10)
        assert it.received == beginning + b"0123456789"
        assert len(it.pieces[-1]) < 10
        assert it.options == (1, USUAL)


def test_a_fast_client_that_stops_is_given_up_after_the_idle_time_and_a_moment() -> None:
    with upload(2 * LARGE, idle_timeout=0.5) as it:
        with sending(it.client, bytes(LARGE)):
            it.receive(LARGE)
        began = time.monotonic()
        with pytest.raises(UploadTimedOut):
            it.receive()
        assert time.monotonic() - began < 0.5 + MOST_SECONDS + 2
        assert it.received == bytes(LARGE)
        assert not is_off_the_connection(it.body)


def test_a_fast_body_that_is_cut_off_is_malformed() -> None:
    with upload(2 * LARGE) as it, sending(it.client, bytes(LARGE + 1)):
        it.receive(LARGE)
        it.client.shutdown(socket.SHUT_WR)
        with pytest.raises(MalformedUpload, match="cut off"):
            it.receive()
        assert it.received == bytes(LARGE + 1)


def test_a_small_body_is_never_waited_for_in_larger_pieces() -> None:
    content = bytes(200_000)
    with upload(len(content)) as it, sending(it.client, content[:1000], content[1000:], pause=0.2):
        it.receive()
        assert it.received == content
        assert it.server.changes == []
