"""Background work that fails: logged once a minute, and not repeated early."""

import threading
import time
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from app.database import Database
from app.errors import DatabaseFailed
from app.outbox import dispatcher as dispatching
from app.process.background import BackgroundWork
from app.process.failure_log import REPEAT_SECONDS, FailureLog
from tests.outbox.world import Receiver, World


def test_a_failure_that_repeats_is_logged_once_a_minute_and_says_how_often_it_was_not() -> None:
    clock = [0.0]
    failures = FailureLog("work_failed", monotonic=lambda: clock[0], work="sweep")
    with capture_logs() as logs:
        for second in range(2 * int(REPEAT_SECONDS)):
            clock[0] = float(second)
            failures.failed(DatabaseFailed("The disk refuses."))
    assert [line.get("repeated") for line in logs] == [None, REPEAT_SECONDS - 1]
    assert {(line["event"], line["reason"], line["work"]) for line in logs} == {
        ("work_failed", "The disk refuses.", "sweep")
    }


def test_an_expected_failure_is_logged_in_one_line_without_its_trace() -> None:
    failures = FailureLog("work_failed")
    with capture_logs() as logged:
        failures.failed(OSError("the disk refuses"), expected=True)
        failures.failed(OSError("something else"))
    assert logged[0]["reason"] == "the disk refuses"
    assert "exc_info" not in logged[0]
    assert "exc_info" in logged[1]


def test_another_failure_and_one_after_a_success_are_logged_at_once() -> None:
    failures = FailureLog("work_failed", monotonic=lambda: 0.0)
    with capture_logs() as logs:
        failures.failed(ValueError("one"))
        failures.failed(ValueError("another"))
        failures.succeeded()
        failures.failed(ValueError("another"))
    assert len(logs) == 3
    assert all(line["exc_info"] for line in logs)


class Failing(BackgroundWork):
    """Background work that always fails."""

    def __init__(self) -> None:
        super().__init__("failing", pause=0.01)
        self.rounds = threading.Semaphore(0)

    def work(self) -> None:
        self.rounds.release()
        raise DatabaseFailed("The disk refuses.")


def test_background_work_goes_on_after_a_failure_and_logs_it_once() -> None:
    work = Failing()
    with capture_logs() as logs:
        work.start()
        for _round in range(5):
            assert work.rounds.acquire(timeout=30)
        work.stop()
    assert [line["event"] for line in logs] == ["background_work_failed"]


def test_no_wake_up_shortens_the_pause_of_a_dispatcher_that_fails(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "FAILURE_PAUSE_SECONDS", 0.2)
    with closing(Database(sqlite_url)) as database, closing(World(database)) as world:
        dispatcher = world.dispatcher(Receiver())
        turns: list[float] = []

        def fail() -> float:
            turns.append(time.monotonic())
            raise DatabaseFailed("The disk refuses.")

        dispatcher.turn = fail  # type: ignore[method-assign, assignment]
        with capture_logs() as logs:
            dispatcher.start()
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                dispatcher.wake()
                time.sleep(0.005)
            dispatcher.stop()
    assert 2 <= len(turns) <= 6
    assert [line["event"] for line in logs] == ["outbox_turn_failed"]
