"""What passes between the two processes: everything that is sent arrives, and nonsense is told apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.detection.jobs import Beat, Failure, Fault, Finished, Loaded, Message, Total, decode, encode
from app.detection.results import DetectedObject, FrameResult

fraction = st.floats(0, 1)
objects = st.builds(DetectedObject, st.integers(0, 1000), st.text(), *[fraction] * 5)
messages = st.one_of(
    st.builds(Loaded),
    st.builds(Beat, st.integers(0)),
    st.builds(Total, st.none() | st.integers(0)),
    st.builds(Finished, st.integers(0)),
    st.builds(Failure, st.sampled_from(Fault), st.text()),
    st.builds(FrameResult, st.integers(0), st.floats(0, 1e6), st.lists(objects, max_size=5).map(tuple)),
)


@given(messages)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04.",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"type": "Other"}',
        b'{"type": "Total"}',
        b'{"type": "Total", "frames": "many"}',
        b'{"type": "FrameResult", "index": 0, "time": 0, "objects": [{"class_num": 1, "label": "x", "other": 1}]}',
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode(data)
