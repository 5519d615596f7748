"""Names are resolved in time or given up; one slow name server stops nothing for good."""

import socket
import threading
import time

import pytest

from app.annotations.resolver import Addresses, Resolver

FOUND: Addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]


def threads() -> int:
    return sum(thread.name == "annotations-resolver" for thread in threading.enumerate())


def wait_for_threads(count: int) -> bool:
    ends = time.monotonic() + 5
    while threads() != count and time.monotonic() < ends:
        time.sleep(0.01)
    return threads() == count


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_needs_no_lookup(host: str) -> None:
    def never(*_: object, **__: object) -> Addresses:
        raise AssertionError

    ((_, kind, _, _, address),) = Resolver(never).resolve(host, 80, 1.0)
    assert (kind, address[:2]) == (socket.SOCK_STREAM, (host, 80))
    assert threads() == 0


def test_names_are_resolved_by_one_thread_that_ends_on_close() -> None:
    asked: list[object] = []

    def lookup(host: str, port: int, **options: object) -> Addresses:
        asked.append((host, port))
        return FOUND

    resolver = Resolver(lookup)
    assert [resolver.resolve("a.test", port, 5.0) for port in (1, 2)] == [FOUND, FOUND]
    assert asked == [("a.test", 1), ("a.test", 2)]
    assert threads() == 1
    resolver.close()
    assert wait_for_threads(0)
    assert resolver.resolve("a.test", 3, 5.0) == FOUND
    resolver.close()
    assert wait_for_threads(0)


def test_a_silent_name_server_is_given_up_and_its_late_askers_forgotten() -> None:
    speaks = threading.Event()
    asked: list[int] = []

    def lookup(host: str, port: int, **options: object) -> Addresses:
        asked.append(port)
        speaks.wait(30)
        return FOUND

    resolver = Resolver(lookup)
    for port in (1, 2, 3):
        with pytest.raises(TimeoutError):
            resolver.resolve("a.test", port, 0.05)
    speaks.set()
    assert resolver.resolve("a.test", 4, 5.0) == FOUND
    assert asked == [1, 4]
    resolver.close()
    assert wait_for_threads(0)


def test_a_name_asked_for_after_a_close_is_not_left_behind_by_the_thread_that_ends() -> None:
    speaks = threading.Event()

    def lookup(host: str, port: int, **options: object) -> Addresses:
        if port == 1:
            speaks.wait(30)
        return FOUND

    resolver = Resolver(lookup)
    with pytest.raises(TimeoutError):
        resolver.resolve("a.test", 1, 0.05)
    resolver.close()
    assert resolver.resolve("a.test", 2, 5.0) == FOUND
    speaks.set()
    resolver.close()
    assert wait_for_threads(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_of_a_bug_is_replaced() -> None:
    def lookup(host: str, port: int, **options: object) -> Addresses:
        assert port != 1
        return FOUND

    resolver = Resolver(lookup)
    with pytest.raises(TimeoutError):
        resolver.resolve("a.test", 1, 0.5)
    assert wait_for_threads(0)
    assert resolver.resolve("a.test", 2, 5.0) == FOUND
    resolver.close()
    assert wait_for_threads(0)
