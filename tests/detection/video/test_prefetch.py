"""Prefetched frames: the same ones in the same order, a limited number in advance, and nothing left running."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from app.detection.detector import Frame
from app.detection.video.prefetch import prefetch
from app.errors import Undecodable
from tests.eventually import eventually

PICTURE = np.zeros((2, 2, 3), np.uint8)


class Source:
    """Frames, counted as they are decoded, with an error after `fails_after` of them."""

    def __init__(self, count: int, fails_after: int | None = None) -> None:
        self.decoded = 0
        self.thread: threading.Thread | None = None
        self._count = count
        self._fails_after = fails_after

    def __iter__(self) -> Iterator[Frame]:
        self.thread = threading.current_thread()
        for index in range(self._count):
            if index == self._fails_after:
                raise Undecodable("the rest is broken")
            self.decoded += 1
            yield Frame(index, index / 2, PICTURE)

    def has_stopped(self) -> bool:
        return self.thread is not None and not self.thread.is_alive()


@pytest.mark.parametrize("limit", [1, 4])
def test_frames_come_in_order_and_to_the_last(limit: int) -> None:
    source = Source(200)
    assert [frame.index for frame in prefetch(source, limit)] == list(range(200))
    assert source.has_stopped()
    assert source.thread is not threading.current_thread()


def test_no_frames_are_no_frames() -> None:
    assert list(prefetch(Source(0))) == []


def test_the_next_frames_are_decoded_while_one_is_processed_but_only_a_few() -> None:
    source = Source(200)
    with closing(prefetch(source, 3)) as frames:
        for seen in range(1, 10):
            next(frames)
            eventually(lambda: source.decoded == seen + 3)  # noqa: B023
            time.sleep(0.02)
            assert source.decoded == seen + 3


def test_an_error_comes_after_the_frames_before_it() -> None:
    source = Source(200, fails_after=5)
    seen: list[int] = []
    with pytest.raises(Undecodable, match="the rest is broken"):
        seen.extend(frame.index for frame in prefetch(source))
    assert seen == [0, 1, 2, 3, 4]
    assert source.has_stopped()


def test_leaving_early_ends_the_decoding() -> None:
    source = Source(200)
    with closing(prefetch(source)) as frames:
        next(frames)
    assert source.has_stopped()
    assert source.decoded <= 6


def test_leaving_while_a_frame_is_being_decoded_waits_for_it() -> None:
    """A decoder that is freed during its work would crash the process."""
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[Frame]:
        yield Frame(0, 0.0, PICTURE)
        begun.set()
        go_on.wait(10)
        yield Frame(1, 0.5, PICTURE)

    frames = prefetch(slow())
    next(frames)
    assert begun.wait(10)
    leaving = threading.Thread(target=frames.close)
    leaving.start()
    leaving.join(0.1)
    assert leaving.is_alive()
    go_on.set()
    leaving.join(10)
    assert not leaving.is_alive()
