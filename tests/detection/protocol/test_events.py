"""Events between the two processes: valid ones arrive unchanged, invalid ones are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.detection.protocol.events import (
    DrawingReady,
    Event,
    Failure,
    FailureKind,
    Finished,
    FrameCount,
    Heartbeat,
    ModelLoaded,
    Paused,
    SandboxApplied,
    decode,
    encode,
)
from app.detection.results import DetectedObject, FrameResult
from app.detection.sandbox.policy import Sandbox
from app.detection.video.position import VideoPosition

fraction = st.floats(0, 1)
texts = st.text(max_size=255).filter(str.isprintable)
objects = st.builds(DetectedObject, st.integers(0, 1000), texts, *[fraction] * 5)
whole = st.integers(-(2**63), 2**63 - 1)
seconds = st.none() | st.floats(allow_nan=False, allow_infinity=False)
positions = st.builds(VideoPosition, whole, whole, whole, st.none() | whole, seconds, seconds, whole)
messages = st.one_of(
    st.builds(ModelLoaded),
    st.builds(Heartbeat, st.integers(0)),
    st.builds(FrameCount, st.none() | st.integers(0)),
    st.builds(Paused, st.none() | positions.map(VideoPosition.encode), st.integers(0)),
    st.builds(Finished, st.integers(0), st.lists(texts, max_size=8).map(tuple)),
    st.builds(Failure, st.sampled_from(FailureKind), texts),
    st.builds(SandboxApplied, st.builds(Sandbox, st.integers(0, 9), st.booleans(), st.booleans()), texts),
    st.builds(DrawingReady, st.integers(0)),
    st.builds(FrameResult, st.integers(0), st.floats(0, 1e6), st.lists(objects, max_size=5).map(tuple), st.integers(0)),
)


@given(messages)
def test_a_message_arrives_as_it_was_sent(message: Event) -> None:
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
        b'{"type": "FrameCount"}',
        b'{"type": "FrameCount", "frames": "many"}',
        b'{"type": "FrameCount", "frames": Infinity}',
        b'{"type": "FrameResult", "index": 0, "time": NaN, "objects": [], "source_frame": 0}',
        encode(FrameResult(0, 0.0, (DetectedObject(1, "x", float("nan"), 0, 0, 0, 0),))),
        b'{"type": "Finished", "skipped": 0, "warnings": null}',
        b'{"type": "Paused", "skipped": 0}',
        b'{"type": "Paused", "skipped": 0, "position": 1}',
        encode(Paused("a\0b", 0)),
        encode(Paused(VideoPosition(0, 0, 0, 0, float("inf"), 0, 0).encode(), 0)),
        b'{"type": "FrameResult", "index": 0, "time": 0, "objects": [{"class_num": 1, "label": "x", "other": 1}]}',
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, OverflowError)):
        decode(data)


def test_what_no_database_takes_is_taken_out_of_texts() -> None:
    failure = decode(encode(Failure(FailureKind.BROKEN, "a\0b\ud800" + "c" * 5000)))
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("a b c")
    assert len(failure.reason) <= 1000


def test_warnings_are_few_and_short_whatever_a_process_sends() -> None:
    sent = decode(encode(Finished(0, ("x" * 100_000,) * 1000)))
    assert isinstance(sent, Finished)
    assert len(sent.warnings) < 10
    assert max(map(len, sent.warnings)) <= 300
