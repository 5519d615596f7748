"""The retry policy: its waits are bounded, grow with the failures and obey Retry-After."""

import threading
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.outbox.messages import Classification, Verdict
from app.outbox.retry_policy import RetryPolicy

POLICY = RetryPolicy()
LONGEST_FOR_A_MEDIA = 15 * 60
LONGEST_FOR_THE_CIRCUIT = 30
UNSENT = Classification(Verdict.UNFIT, "connection refused", unsent=True)
SENT = Classification(Verdict.RETRY, "500", 500)

counts = st.integers(min_value=1, max_value=10_000)


@given(counts)
def test_a_media_waits_at_least_a_second_and_at_most_a_quarter_of_an_hour(attempts: int) -> None:
    assert 1 <= POLICY.media_wait.delay(attempts) <= LONGEST_FOR_A_MEDIA


@given(counts)
def test_the_circuit_stays_open_for_at_least_a_second_and_at_most_half_a_minute(failures: int) -> None:
    assert 1 <= POLICY.circuit_wait.delay(failures, None) <= LONGEST_FOR_THE_CIRCUIT


@given(counts, st.floats(min_value=0, max_value=3600))
def test_the_circuit_heeds_a_retry_after_where_it_is_the_longer_one(failures: int, retry_after: float) -> None:
    delay = POLICY.circuit_wait.delay(failures, retry_after)
    assert delay >= retry_after
    assert delay <= max(retry_after, LONGEST_FOR_THE_CIRCUIT)


@given(counts)
def test_a_held_user_waits_at_least_a_second_and_at_most_five_minutes(failures: int) -> None:
    assert 1 <= POLICY.hold_wait.delay(failures) <= 300


@given(counts)
def test_what_is_not_the_last_word_waits_at_least_a_second_and_at_most_half_a_minute(counted: int) -> None:
    assert 1 <= POLICY.limited_wait.delay(counted) <= 30


@given(counts)
def test_an_unfit_answer_makes_a_message_wait_a_second_for_long_and_half_a_minute_at_most(attempts: int) -> None:
    assert 1 <= POLICY.unfit_wait.delay(attempts) <= (1.25 if attempts <= 10 else 30.25)


@given(counts, st.floats(min_value=0, max_value=3600))
def test_every_wait_is_at_least_as_long_as_was_asked_for(count: int, retry_after: float) -> None:
    waits = (
        POLICY.media_wait.delay,
        POLICY.circuit_wait.delay,
        POLICY.unfit_wait.delay,
        POLICY.hold_wait.delay,
        POLICY.limited_wait.delay,
    )
    assert all(wait(count, retry_after) >= retry_after for wait in waits)


@pytest.mark.parametrize("attempts", range(1, 12))
def test_each_further_failure_makes_the_wait_longer_on_average(attempts: int) -> None:
    shorter = mean(POLICY.media_wait.delay(attempts) for _ in range(300))
    longer = mean(POLICY.media_wait.delay(attempts + 1) for _ in range(300))
    assert longer >= shorter


@given(st.integers(min_value=1, max_value=9))
def test_the_wait_doubles_with_each_failure_but_for_its_jitter(attempts: int) -> None:
    delay = POLICY.media_wait.delay(attempts)
    assert 2 ** (attempts - 1) <= delay <= 2 ** (attempts - 1) + 1


def test_the_waits_of_many_media_that_fail_together_are_spread() -> None:
    assert len({POLICY.media_wait.delay(3) for _ in range(50)}) > 40


@given(st.integers(min_value=-5, max_value=0))
def test_no_count_makes_a_wait_without_a_lower_bound(attempts: int) -> None:
    assert POLICY.media_wait.delay(attempts) >= 1


def _tries(*answers: Classification, stopping: threading.Event | None = None) -> tuple[int, object]:
    left = list(answers)
    made = 0

    def once() -> Classification:
        nonlocal made
        made += 1
        return left.pop(0)

    outcome = POLICY.within_claim(stopping or threading.Event())(once)
    return made, outcome


def test_within_a_claim_only_what_was_never_sent_is_repeated() -> None:
    assert _tries(UNSENT, SENT, UNSENT) == (2, SENT)
    assert _tries(SENT, UNSENT) == (1, SENT)


def test_within_a_claim_there_are_three_tries() -> None:
    assert _tries(UNSENT, UNSENT, UNSENT, UNSENT) == (3, UNSENT)


def test_a_shutdown_ends_the_tries_within_a_claim() -> None:
    stopping = threading.Event()
    stopping.set()
    assert _tries(UNSENT, SENT, stopping=stopping) == (1, UNSENT)
