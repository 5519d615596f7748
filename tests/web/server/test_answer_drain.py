"""The limit of responses that continue without a thread: which stay, and which are disconnected."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from selectors import DefaultSelector

import pytest

from app.web.server.answer_drain import AnswerDrain
from app.web.server.answer_socket import AnswerSocket
from app.web.upload.receive_timeouts import ReaderPace

CONTENT = bytes(1 << 20)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """Two responses at most, and clients that read when told."""

    def __init__(self, stack: ExitStack, *, places: int = 2, most_kept: int = 100 << 20) -> None:
        self._stack = stack
        self.clock = Clock()
        self.poller = stack.enter_context(DefaultSelector())
        self.drain = AnswerDrain(self.poller, max_answers=places, max_memory=most_kept, clock=self.clock)
        self.sent: list[str] = []
        self.dropped: list[str] = []

    def add(self, name: str) -> socket.socket:
        server, client = map(self._stack.enter_context, socket.socketpair())
        answer = AnswerSocket(server, ReaderPace())
        answer.sendall(CONTENT)
        assert answer.has_rest

        def drop() -> None:
            self.dropped.append(name)
            server.close()

        self.drain.add(server, name, answer, then=lambda: self.sent.append(name), dropped=drop)
        return client

    def read(self, client: socket.socket, count: int) -> int:
        """Have the client read that much as it arrives, while the loop runs."""
        client.setblocking(False)
        received = 0
        for _ in range(10_000):
            try:
                received += len(client.recv(min(65536, count - received)))
            except BlockingIOError:
                for key, _ in self.poller.select(0):
                    key.data(key.fileobj)
            if received >= count:
                break
        for key, _ in self.poller.select(0):
            key.data(key.fileobj)
        return received

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.now += 1
            self.drain.cut_off_late()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_an_answer_is_sent_as_its_reader_takes_it(stack: ExitStack) -> None:
    world = World(stack)
    client = world.add("ada")
    assert world.read(client, len(CONTENT)) == len(CONTENT)
    assert world.sent == ["ada"]
    assert world.dropped == []
    assert len(world.drain) == 0
    assert not world.poller.get_map()


def test_who_reads_nothing_is_cut_off_after_its_time_and_who_reads_is_not(stack: ExitStack) -> None:
    world = World(stack)
    world.add("idle")
    reader = world.add("reader")
    for _ in range(40):
        world.read(reader, 5000)
        world.pass_seconds(1)
    assert world.sent == []
    assert world.dropped == ["idle"]


def test_the_slowest_loses_its_place_to_a_new_one(stack: ExitStack) -> None:
    world = World(stack)
    slow, fast = world.add("slow"), world.add("fast")
    for _ in range(5):
        world.read(slow, 2000)
        world.read(fast, 100_000)
        world.pass_seconds(1)
    world.add("new")
    assert world.dropped == ["slow"]
    assert len(world.drain) == 2
    world.add("newer")
    assert world.dropped == ["slow", "new"]  # as old as the last, and it has read nothing


def test_memory_is_limited_as_places_are(stack: ExitStack) -> None:
    world = World(stack, places=100, most_kept=2 * len(CONTENT))
    for name in "abc":
        world.add(name)
        world.clock.now += 1
    assert world.dropped == ["a"]


def test_a_client_that_goes_frees_its_place(stack: ExitStack) -> None:
    world = World(stack)
    world.add("ada").close()
    for key, _ in world.poller.select(1):
        key.data(key.fileobj)
    assert world.dropped == ["ada"]
    assert len(world.drain) == 0


def test_a_connection_that_was_closed_meanwhile_is_dropped(stack: ExitStack) -> None:
    world = World(stack)
    server, _client = map(stack.enter_context, socket.socketpair())
    answer = AnswerSocket(server, ReaderPace())
    answer.sendall(CONTENT)
    server.close()
    world.drain.add(server, "gone", answer, then=lambda: None, dropped=lambda: world.dropped.append("gone"))
    assert world.dropped == ["gone"]
    assert answer.has_rest is False
    assert len(world.drain) == 0
