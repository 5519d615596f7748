"""The body sources on gunicorn's own readers and a real socket pair, without a server."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import SocketUnreader
from hypothesis import given
from hypothesis import strategies as st

from app.errors import MalformedUpload, UploadTimedOut
from app.web.server.gunicorn_internals import HeldContinue, is_off_the_connection
from app.web.upload.receive_timeouts import Pace
from app.web.upload.request_body import READ_SIZE, BodySource, open_source


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pace(idle_timeout: float = 5.0, clock: FakeClock | None = None) -> Pace:
    return Pace(idle_timeout, grace=10.0, bytes_per_second=1000.0, clock=clock or FakeClock())


class MarkedAsTls(ssl.SSLSocket):
    """A plain socket that counts as a TLS socket."""

    def __init__(self, plain: socket.socket) -> None:
        socket.socket.__init__(self, fileno=plain.detach())
        self._sslobj = None


@dataclass
class Connection:
    """A request whose head gunicorn has parsed: a part of what follows is buffered, the rest is on the socket."""

    body: Any
    unreader: Any
    client: socket.socket
    environ: dict[str, Any]

    def source(self, at: Pace | None = None) -> BodySource:
        return open_source(self.environ, at or pace())

    def left(self) -> bytes:
        """Return what remains for the next request."""
        self.client.shutdown(socket.SHUT_WR)
        left = bytes(self.unreader.take_buffered())
        while data := self.unreader.sock.recv(65536):
            left += data
        return left


@contextmanager
def connection(length: int, *, buffered: bytes = b"", arriving: bytes = b"") -> Iterator[Connection]:
    server, client = socket.socketpair()
    with server, client:
        unreader = SocketUnreader(server)
        unreader.unread(buffered)
        body = Body(LengthReader(unreader, length))
        environ = {"wsgi.input": body, "CONTENT_LENGTH": str(length)}
        client.sendall(arriving)
        yield Connection(body, unreader, client, environ)


def read_all(source: BodySource) -> bytes:
    pieces = []
    while piece := source.read():
        pieces.append(bytes(piece))
    return b"".join(pieces)


@given(content=st.binary(max_size=300), behind=st.binary(max_size=100), buffered=st.integers(0, 400))
def test_the_body_is_taken_and_no_byte_more(content: bytes, behind: bytes, buffered: int) -> None:
    stream = content + behind
    with connection(len(content), buffered=stream[:buffered], arriving=stream[buffered:]) as at:
        assert read_all(at.source()) == content
        assert is_off_the_connection(at.body)
        assert at.left() == behind


@given(content=st.binary(min_size=2, max_size=300), data=st.data())
def test_what_was_read_through_gunicorn_before_is_not_lost(content: bytes, data: st.DataObject) -> None:
    early = data.draw(st.integers(0, len(content) - 1))
    with connection(len(content), buffered=content[:100], arriving=content[100:] + b"next") as at:
        assert at.body.read(early) + read_all(at.source()) == content
        assert at.left() == b"next"


def test_a_large_body_comes_in_bounded_pieces() -> None:
    content = bytes(range(256)) * 8192
    with connection(len(content)) as at:
        sender = threading.Thread(target=at.client.sendall, args=(content,))
        sender.start()
        source, received = at.source(), b""
        while view := source.read():
            assert len(view) <= READ_SIZE
            received += view
        sender.join()
    assert received == content


def test_until_its_last_byte_a_body_counts_as_failed() -> None:
    with connection(10, buffered=b"12345", arriving=b"67890") as at:
        source = at.source()
        assert not at.body.failed, "nothing is touched before the first read"
        source.read()
        assert at.body.failed
        assert not is_off_the_connection(at.body)
        source.read()
        assert not at.body.failed
        assert is_off_the_connection(at.body)


def test_a_client_that_waits_is_invited_by_the_first_read_and_not_before() -> None:
    with connection(5) as at:
        at.body.reader = HeldContinue(at.body, at.unreader.sock)
        source = at.source()
        at.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            at.client.recv(100)
        assert not is_off_the_connection(at.body)
        at.client.send(b"bytes")
        assert read_all(source) == b"bytes"
        assert at.client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_whoever_else_reads_the_body_invites_it_too() -> None:
    with connection(5, arriving=b"bytes") as at:
        at.body.reader = HeldContinue(at.body, at.unreader.sock)
        assert at.body.read() == b"bytes"
        assert at.client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_cut_off_body_is_malformed_and_its_connection_lost() -> None:
    with connection(10, arriving=b"12345") as at:
        at.client.shutdown(socket.SHUT_WR)
        with pytest.raises(MalformedUpload, match="cut off"):
            read_all(at.source())
        assert not is_off_the_connection(at.body)


def test_a_cut_off_body_through_gunicorns_reader_is_malformed_and_its_connection_lost() -> None:
    with connection(10, arriving=b"12345") as at, MarkedAsTls(at.unreader.sock) as at.unreader.sock:
        at.client.shutdown(socket.SHUT_WR)
        with pytest.raises(MalformedUpload, match="cut off"):
            read_all(at.source())
        # gunicorn itself counts all ten bytes as received.
        assert not is_off_the_connection(at.body)


def test_a_silent_client_times_out_and_the_socket_keeps_its_own_timeout() -> None:
    with connection(10, arriving=b"12345") as at:
        at.unreader.sock.settimeout(7)
        with pytest.raises(UploadTimedOut, match=r"nothing for 0\.05 s"):
            read_all(at.source(pace(idle_timeout=0.05)))
        assert at.unreader.sock.gettimeout() == 7
        assert not is_off_the_connection(at.body)


def test_a_body_may_take_its_grace_and_a_second_for_each_unit_of_its_rate() -> None:
    clock = FakeClock()
    patience = pace(idle_timeout=5.0, clock=clock)
    assert patience.next_wait() == 5.0
    clock.now += 8
    assert patience.next_wait() == pytest.approx(2.0)
    patience.count(2_000)
    assert patience.next_wait() == pytest.approx(4.0)
    clock.now += 4
    with pytest.raises(UploadTimedOut, match="slower than 1000 bytes a second"):
        patience.next_wait()


def test_the_clock_of_a_body_starts_at_its_first_read() -> None:
    clock = FakeClock()
    patience = pace(clock=clock)
    clock.now += 1_000
    assert patience.next_wait() == 5.0
