"""Receive timeouts, with a test clock."""

import pytest

from app.errors import UploadTimedOut
from app.web.upload.receive_timeouts import MAX_CREDIT_SECONDS, ReaderTooSlow, ReceiveTimeouts, SendTimeouts

MIB = 1 << 20


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timeouts(clock: Clock) -> ReceiveTimeouts:
    return ReceiveTimeouts(30.0, grace=60.0, bytes_per_second=1024.0, clock=clock)


def seconds_left(timeouts: ReceiveTimeouts, clock: Clock) -> int:
    """Return how long a client that stops sending would still be waited for."""
    began = clock.now
    while True:
        try:
            timeouts.next_timeout()
        except UploadTimedOut:
            return round(clock.now - began)
        clock.now += 1


def test_a_client_has_the_grace_and_what_its_bytes_earn(timeouts: ReceiveTimeouts, clock: Clock) -> None:
    timeouts.next_timeout()
    timeouts.count(10 * 1024)
    assert seconds_left(timeouts, clock) == 70


def test_sixty_four_mebibytes_in_a_second_buy_ten_minutes_and_not_eighteen_hours(
    timeouts: ReceiveTimeouts, clock: Clock
) -> None:
    timeouts.next_timeout()
    for _ in range(64):
        timeouts.count(MIB)
        clock.now += 1 / 64
    assert seconds_left(timeouts, clock) <= MAX_CREDIT_SECONDS == 600


def test_a_client_that_keeps_its_rate_is_waited_for_however_long_it_takes(
    timeouts: ReceiveTimeouts, clock: Clock
) -> None:
    for _ in range(100_000):
        timeouts.next_timeout()
        clock.now += 1
        timeouts.count(1024)
    assert seconds_left(timeouts, clock) == 60


def seconds_waited(timeouts: SendTimeouts, acknowledged_a_second: int, *, most: int = 100_000) -> int:
    """Return how long a reader of that speed is waited for."""
    for second in range(most):
        try:
            timeouts.waited(1.0, acknowledged_a_second)
        except ReaderTooSlow:
            return second + 1
    return most


def test_a_reader_that_stands_still_is_waited_for_half_a_minute() -> None:
    assert seconds_waited(SendTimeouts(), 0) == 30


def test_a_dripping_reader_has_its_grace_and_what_its_bytes_earn() -> None:
    assert seconds_waited(SendTimeouts(), 512) == 120
    assert seconds_waited(SendTimeouts(), 1) == 61


def test_a_reader_at_its_pace_is_waited_for_however_long_it_takes() -> None:
    assert seconds_waited(SendTimeouts(), 1024) == 100_000


def test_fast_bytes_buy_a_reader_ten_minutes_at_the_most() -> None:
    timeouts = SendTimeouts()
    timeouts.waited(1.0, 1 << 30)
    assert seconds_waited(timeouts, 1) == MAX_CREDIT_SECONDS + 1


def test_a_reader_that_is_not_waited_for_keeps_its_time() -> None:
    timeouts = SendTimeouts()
    for _ in range(100_000):
        timeouts.waited(0.0, 0)
    assert seconds_waited(timeouts, 0) == 30
