"""One call at a time, in one thread, for any number of callers."""

import threading
from concurrent.futures import TimeoutError as NotInTime

import pytest

from app.process.single_flight import SingleFlight
from tests.eventually import eventually


def test_whoever_asks_while_it_is_under_way_gets_the_same_outcome() -> None:
    may_end, calls = threading.Event(), []

    def call() -> int:
        calls.append(threading.current_thread().name)
        may_end.wait(30)
        return len(calls)

    shared = SingleFlight(call, "a name")
    first, second = shared.begin(), shared.begin()
    assert shared.is_under_way
    may_end.set()
    assert first.result(30) == second.result(30) == 1
    eventually(lambda: not shared.is_under_way)
    assert shared.begin().result(30) == 2
    assert calls == ["a name"] * 2
    eventually(lambda: "a name" not in {thread.name for thread in threading.enumerate()})


def test_a_call_that_hangs_is_given_up_by_who_waits_and_holds_one_thread() -> None:
    may_end = threading.Event()
    shared = SingleFlight(lambda: may_end.wait(30), "hangs")
    for _ in range(3):
        with pytest.raises(NotInTime):
            shared.begin().result(0.01)
        shared.wait(0.01)
    assert [thread.name for thread in threading.enumerate()].count("hangs") == 1
    may_end.set()
    assert shared.begin().result(30)


def test_what_it_raises_is_raised_where_its_outcome_is_asked_for_and_the_next_call_is_new() -> None:
    outcomes: list[Exception | str] = [ValueError("why"), "well"]

    def call() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    shared = SingleFlight(call, "fails")
    with pytest.raises(ValueError, match="why"):
        shared.begin().result(30)
    assert shared.begin().result(30) == "well"
