"""The response socket on a real connection: data is kept without a slot, and waited for with one."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from app.web.server.answer_socket import AnswerSocket
from app.web.upload.receive_timeouts import ReaderPace, ReaderTooSlow

CONTENT = bytes(range(256)) * (1 << 15)


@dataclass
class Connection:
    server: socket.socket
    client: socket.socket

    def answer(self, pace: ReaderPace | None = None, *, holds_slot: bool = False) -> AnswerSocket:
        answer = AnswerSocket(self.server, pace or ReaderPace())
        answer.holds_slot = holds_slot
        return answer

    def read(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count and (data := self.client.recv(min(65536, count - len(received)))):
            received += data
        return bytes(received)

    def send_rest(self, answer: AnswerSocket) -> None:
        """Send the rest as the main loop does."""
        self.server.setblocking(False)
        while answer.has_rest:
            answer.send_rest(100_000)


@pytest.fixture
def connection() -> Iterator[Connection]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        client.settimeout(20)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            yield Connection(server, client)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[IO[bytes]]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        yield file


@contextmanager
def receiving(connection: Connection, count: int) -> Iterator[list[bytes]]:
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(connection.read(count)))
    thread.start()
    yield received
    thread.join(20)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_without_a_slot_nobody_is_waited_for_and_all_of_it_comes_in_order(
    connection: Connection, file: IO[bytes]
) -> None:
    before = open_files()
    answer = connection.answer()
    began = time.monotonic()
    answer.sendall(b"head")
    answer.sendall(CONTENT)
    answer.sendfile(file, offset=1000, count=3_000_000)
    answer.sendall(b"end")
    file.close()
    assert time.monotonic() - began < 1
    assert answer.has_rest
    assert 0 < answer.kept_bytes <= len(CONTENT) + 3
    wanted = b"head" + CONTENT + CONTENT[1000:3_001_000] + b"end"
    with receiving(connection, len(wanted)) as received:
        connection.send_rest(answer)
    assert received == [wanted]
    assert answer.kept_bytes == 0
    assert open_files() == before - 1


def test_with_a_slot_it_is_waited_for_and_nothing_is_kept(connection: Connection, file: IO[bytes]) -> None:
    answer = connection.answer(holds_slot=True)
    with receiving(connection, 2 * len(CONTENT)) as received:
        answer.sendall(CONTENT)
        answer.sendfile(file)
    assert received == [2 * CONTENT]
    assert not answer.has_rest
    assert connection.server.gettimeout() is None


def test_what_the_kernel_has_taken_counts_only_once_the_client_has_it(connection: Connection) -> None:
    answer = connection.answer()
    answer.sendall(CONTENT)
    answer.waited(0.0)
    at_first = answer.acknowledged
    assert at_first < 100_000
    taken = len(CONTENT) - answer.kept_bytes
    connection.read(taken)
    answer.waited(0.0)
    assert at_first < answer.acknowledged == taken


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_a_reader_that_stands_still_is_cut_off_and_the_kernel_forgets_what_it_had(
    connection: Connection, file: IO[bytes], kind: str
) -> None:
    answer = connection.answer(ReaderPace(0.3), holds_slot=True)
    write = partial(answer.sendall, CONTENT) if kind == "bytes" else partial(answer.sendfile, file)
    with pytest.raises(ReaderTooSlow, match="read nothing"):
        write()
    answer.close()
    with pytest.raises(ConnectionResetError):
        connection.read(len(CONTENT))


def test_a_dripping_reader_is_cut_off(connection: Connection) -> None:
    answer = connection.answer(ReaderPace(20, grace=0.5, bytes_per_second=1e6), holds_slot=True)
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.05):
            connection.client.recv(2000)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with pytest.raises(ReaderTooSlow, match="slower than"):
            answer.sendall(CONTENT)
    finally:
        over.set()
        thread.join(20)


def test_an_answer_that_breaks_off_forgets_its_rest(connection: Connection, file: IO[bytes]) -> None:
    before = open_files()
    answer = connection.answer()
    answer.sendall(CONTENT)
    answer.sendfile(file)
    answer.shutdown(socket.SHUT_WR)
    assert not answer.has_rest
    assert open_files() == before
    assert len(connection.read(len(CONTENT))) < len(CONTENT)


def test_a_client_that_has_gone_is_an_error(connection: Connection) -> None:
    connection.client.close()
    answer = connection.answer(holds_slot=True)
    with pytest.raises(ConnectionError):
        answer.sendall(CONTENT)


def test_a_file_that_became_shorter_ends_its_answer_early(connection: Connection, tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    path.write_bytes(b"0123456789")
    answer = connection.answer(holds_slot=True)
    with path.open("rb") as shrinking:
        answer.sendfile(shrinking, count=20)
    answer.shutdown(socket.SHUT_WR)
    assert connection.read(20) == b"0123456789"
