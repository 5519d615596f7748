"""Names are resolved within a time limit; a slow name server holds one thread and blocks nothing for good."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.http_exchange.resolver import Addresses, Resolver
from tests.eventually import eventually

FOUND: Addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]


def threads() -> int:
    return sum(thread.name == "resolver" for thread in threading.enumerate())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_needs_no_lookup(host: str) -> None:
    def never(*_: object, **__: object) -> Addresses:
        raise AssertionError

    ((_, kind, _, _, address),) = Resolver(never).resolve(host, 80, 1.0)
    assert kind == socket.SOCK_STREAM
    assert address[:2] == (host, 80)
    assert threads() == 0


def test_each_name_is_resolved_when_needed_and_leaves_no_thread() -> None:
    asked: list[object] = []

    def lookup(host: str, port: int, **options: object) -> Addresses:
        asked.append((host, port))
        return FOUND

    resolver = Resolver(lookup)
    assert [resolver.resolve("a.test", port, 5.0) for port in (1, 2, 1)] == [FOUND] * 3
    assert asked == [("a.test", 1), ("a.test", 2), ("a.test", 1)]
    eventually(lambda: threads() == 0)


def test_a_silent_name_server_is_given_up_and_holds_one_thread_however_many_ask() -> None:
    speaks = threading.Event()
    asked: list[int] = []

    def lookup(host: str, port: int, **options: object) -> Addresses:
        asked.append(port)
        speaks.wait(30)
        return FOUND

    resolver = Resolver(lookup)

    def give_up(_number: int) -> None:
        with pytest.raises(TimeoutError, match="not resolved within"):
            resolver.resolve("a.test", 1, 0.05)

    with ThreadPoolExecutor(8) as askers:
        list(askers.map(give_up, range(8)))
    assert asked == [1]
    assert threads() == 1
    speaks.set()
    assert resolver.resolve("a.test", 1, 5.0) == FOUND
    eventually(lambda: threads() == 0)


def test_a_failed_lookup_raises_and_the_next_one_is_new() -> None:
    answers: list[OSError | Addresses] = [OSError("no such name"), TimeoutError("the server said so"), FOUND]

    def lookup(host: str, port: int, **options: object) -> Addresses:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    resolver = Resolver(lookup)
    with pytest.raises(OSError, match="no such name"):
        resolver.resolve("a.test", 1, 5.0)
    with pytest.raises(TimeoutError, match="the server said so"):
        resolver.resolve("a.test", 1, 5.0)
    assert resolver.resolve("a.test", 1, 5.0) == FOUND
