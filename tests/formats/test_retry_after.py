"""Retry-After as servers write it, and as nobody should."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.formats.retry_after import retry_after_seconds

NOON = datetime(2025, 11, 22, 12, tzinfo=UTC)
NOW = NOON.timestamp()


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0), ("1", 1), (" 120 ", 120), ("3600", 3600), ("3601", 3600), ("9" * 40_000, 3600)]
)
def test_seconds_are_taken_up_to_an_hour(value: str, seconds: float) -> None:
    assert retry_after_seconds(value, None, NOW) == seconds


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        " ",
        "-1",
        "+5",
        "1.5",
        "nan",
        "inf",
        "-inf",
        "1e9",
        "soon",
        "0x10",
        "٣",
        "²",
        "12, 13",
        "\x00",
        "Sun",
        "24:00",
        "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
    ],
)
def test_nonsense_is_ignored(nonsense: str) -> None:
    assert retry_after_seconds(nonsense, None, NOW) is None


def test_a_missing_header_asks_for_nothing() -> None:
    assert retry_after_seconds(None, None, NOW) is None


@pytest.mark.parametrize(
    ("ahead", "seconds"),
    [(timedelta(seconds=90), 90), (timedelta(0), 0), (timedelta(days=400), 3600), (timedelta(seconds=-1), None)],
)
def test_a_date_counts_from_our_clock_where_the_answer_has_none(ahead: timedelta, seconds: float | None) -> None:
    assert retry_after_seconds(format_datetime(NOON + ahead, usegmt=True), None, NOW) == seconds
    assert retry_after_seconds(format_datetime(NOON + ahead, usegmt=True), "nonsense", NOW) == seconds


@given(st.timedeltas(timedelta(days=-700), timedelta(days=700)), st.integers(0, 3600))
def test_a_clock_that_is_wrong_on_either_side_does_not_matter(off: timedelta, seconds: int) -> None:
    there = (NOON + off).replace(microsecond=0)
    value, date = (format_datetime(moment, usegmt=True) for moment in (there + timedelta(seconds=seconds), there))
    assert retry_after_seconds(value, date, NOW) == seconds


PIECES = st.sampled_from(
    [
        "Sun, ",
        "06 ",
        "Nov ",
        "1994 ",
        "99999999999999999999 ",
        "08:49:37 ",
        "GMT",
        "-0000",
        "+9999999999",
        ":",
        "-",
        "0",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)), st.one_of(st.none(), st.text()))
def test_no_header_breaks_it_or_asks_for_more_than_an_hour(value: str, date: str | None) -> None:
    seconds = retry_after_seconds(value, date, NOW)
    assert seconds is None or 0 <= seconds <= 3600
