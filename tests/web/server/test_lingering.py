"""Connections that are read for a moment before they are closed, with a test clock."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from selectors import DefaultSelector

import pytest

from app.web.server.lingering import LINGER_BYTES, LINGER_SECONDS, Lingering


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self, stack: ExitStack) -> None:
        self.clock = Clock()
        self.poller = stack.enter_context(DefaultSelector())
        self.lingering = Lingering(self.poller, clock=self.clock)
        self.server, self.client = map(stack.enter_context, socket.socketpair())
        self.closed = False

    def add(self, unread: int) -> None:
        self.lingering.add(self.server, unread, closed=self._close)

    def turn(self) -> None:
        for key, _ in self.poller.select(0):
            key.data(key.fileobj)
        self.lingering.close_late()

    def _close(self) -> None:
        self.closed = True
        self.server.close()


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def test_the_rest_of_a_body_is_read_and_then_closed_at_once(world: World) -> None:
    world.add(3000)
    for _ in range(3):
        assert not world.closed
        world.client.sendall(bytes(1000))
        world.turn()
    assert world.closed
    assert len(world.lingering) == 0
    assert len(world.poller.get_map()) == 0


def test_a_client_that_sends_nothing_is_closed_after_a_second(world: World) -> None:
    world.add(LINGER_BYTES)
    world.clock.now += LINGER_SECONDS - 0.1
    world.turn()
    assert not world.closed
    world.clock.now += 0.1
    world.turn()
    assert world.closed


def test_a_client_that_sends_without_end_is_closed_after_so_many_bytes(world: World) -> None:
    world.add(1 << 40)
    sent = 0
    while not world.closed and sent <= LINGER_BYTES:
        sent += world.client.send(bytes(1 << 16))
        world.turn()
    assert world.closed
    assert sent >= LINGER_BYTES


def test_a_client_that_has_gone_is_closed(world: World) -> None:
    world.client.close()
    world.add(1000)
    world.turn()
    assert world.closed


def test_an_answer_ends_although_its_client_is_read_on(world: World) -> None:
    world.server.sendall(b"answer")
    world.add(1000)
    assert world.client.recv(100) == b"answer"
    assert world.client.recv(100) == b""
    assert not world.closed
