"""Timestamps of real files: missing, reset, out of order."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.detection.video.media_clock import MediaClock


def times(start: float | None, timestamps: list[float | None], step: float = 0.1) -> list[float]:
    clock = MediaClock(start, step)
    return [clock.time_of(timestamp) for timestamp in timestamps]


def test_time_counts_from_the_start_of_the_stream() -> None:
    assert times(1.4, [1.4, 1.5, 2.4]) == pytest.approx([0, 0.1, 1])


def test_without_a_known_start_it_counts_from_the_first_frame() -> None:
    assert times(None, [7.0, 7.5]) == pytest.approx([0, 0.5])


def test_a_missing_timestamp_is_one_step_behind_the_last() -> None:
    assert times(0.0, [None, None, 0.5, None, 0.7]) == pytest.approx([0, 0.1, 0.5, 0.6, 0.7])


def test_without_any_timestamp_the_frame_rate_tells_the_time() -> None:
    assert times(None, [None] * 4) == pytest.approx([0, 0.1, 0.2, 0.3])


def test_a_gap_stays_a_gap() -> None:
    assert times(0.0, [0.0, 30.0, 3600.0]) == [0, 30, 3600]


def test_after_a_reset_time_goes_on_from_where_it_was() -> None:
    assert times(0.0, [0.0, 10.0, 0.0, 1.0]) == pytest.approx([0, 10, 10.1, 11.1])


def test_frames_slightly_out_of_order_are_no_reset() -> None:
    assert times(0.0, [0.0, 0.2, 0.1, 0.3]) == pytest.approx([0, 0.2, 0.1, 0.3])


def test_time_is_never_negative() -> None:
    assert times(5.0, [4.9, 5.0]) == [0, 0]


@given(
    start=st.none() | st.floats(-1e6, 1e6),
    timestamps=st.lists(st.none() | st.floats(-1e6, 1e6), max_size=40),
)
def test_whatever_the_timestamps_time_never_falls_back_by_more_than_a_second(
    start: float | None, timestamps: list[float | None]
) -> None:
    given_times = times(start, timestamps)
    assert all(time >= 0 for time in given_times)
    assert all(later >= earlier - 1.001 for earlier, later in itertools.pairwise(given_times))
