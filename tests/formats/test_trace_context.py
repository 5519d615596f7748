"""`traceparent` as received and as sent."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.formats.trace_context import trace_id_of, traceparent_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize("header", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-of-later"])
def test_the_trace_id_of_a_header_is_read(header: str) -> None:
    assert trace_id_of(header) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        TRACE,
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_a_malformed_header_has_no_trace_id(header: str) -> None:
    assert trace_id_of(header) is None


def test_a_trace_id_that_was_received_is_sent_on() -> None:
    assert trace_id_of(traceparent_of(TRACE, "a message")) == TRACE


@given(st.text(min_size=1, max_size=64), st.text(min_size=1, max_size=64))
def test_whatever_is_sent_is_well_formed_and_always_the_same(request_id: str, span: str) -> None:
    sent = traceparent_of(request_id, span)
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", sent)
    assert sent == traceparent_of(request_id, span)


def test_requests_of_one_trace_have_spans_of_their_own() -> None:
    assert traceparent_of("upload-7", "one") != traceparent_of("upload-7", "another")
    assert trace_id_of(traceparent_of("upload-7", "one")) == trace_id_of(traceparent_of("upload-7", "another"))
