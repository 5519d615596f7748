"""Receive timeouts, with a test clock."""

import pytest

from app.errors import UploadTimedOut
from app.web.upload.receive_timeouts import MOST_OWED_SECONDS, Pace, ReaderPace, ReaderTooSlow

MIB = 1 << 20


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(30.0, grace=60.0, bytes_per_second=1024.0, clock=clock)


def seconds_left(pace: Pace, clock: Clock) -> int:
    """Return how long a client that stops sending would still be waited for."""
    began = clock.now
    while True:
        try:
            pace.next_wait()
        except UploadTimedOut:
            return round(clock.now - began)
        clock.now += 1


def test_a_client_has_the_grace_and_what_its_bytes_earn(pace: Pace, clock: Clock) -> None:
    pace.next_wait()
    pace.count(10 * 1024)
    assert seconds_left(pace, clock) == 70


def test_sixty_four_mebibytes_in_a_second_buy_ten_minutes_and_not_eighteen_hours(pace: Pace, clock: Clock) -> None:
    pace.next_wait()
    for _ in range(64):
        pace.count(MIB)
        clock.now += 1 / 64
    assert seconds_left(pace, clock) <= MOST_OWED_SECONDS == 600


def test_a_client_that_keeps_its_pace_is_waited_for_however_long_it_takes(pace: Pace, clock: Clock) -> None:
    for _ in range(100_000):
        pace.next_wait()
        clock.now += 1
        pace.count(1024)
    assert seconds_left(pace, clock) == 60


def seconds_waited(pace: ReaderPace, acknowledged_a_second: int, *, most: int = 100_000) -> int:
    """Return how long a reader of that speed is waited for."""
    for second in range(most):
        try:
            pace.waited(1.0, acknowledged_a_second)
        except ReaderTooSlow:
            return second + 1
    return most


def test_a_reader_that_stands_still_is_waited_for_half_a_minute() -> None:
    assert seconds_waited(ReaderPace(), 0) == 30


def test_a_dripping_reader_has_its_grace_and_what_its_bytes_earn() -> None:
    assert seconds_waited(ReaderPace(), 512) == 120
    assert seconds_waited(ReaderPace(), 1) == 61


def test_a_reader_at_its_pace_is_waited_for_however_long_it_takes() -> None:
    assert seconds_waited(ReaderPace(), 1024) == 100_000


def test_fast_bytes_buy_a_reader_ten_minutes_at_the_most() -> None:
    pace = ReaderPace()
    pace.waited(1.0, 1 << 30)
    assert seconds_waited(pace, 1) == MOST_OWED_SECONDS + 1


def test_a_reader_that_is_not_waited_for_keeps_its_time() -> None:
    pace = ReaderPace()
    for _ in range(100_000):
        pace.waited(0.0, 0)
    assert seconds_waited(pace, 0) == 30
