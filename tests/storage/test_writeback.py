"""Early writeback of a large file: every byte once, in order, and not in small parts."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from app.storage import Storage
from app.storage.writeback import WRITEBACK_BYTES, Writeback, start_writeback


@given(st.lists(st.integers(1, 2 * WRITEBACK_BYTES), max_size=30))
def test_every_part_is_begun_once_and_little_is_left_for_the_sync(pieces: list[int]) -> None:
    begun: list[tuple[int, int]] = []
    writeback, size = Writeback(7, start=lambda _fd, offset, length: begun.append((offset, length))), 0
    for piece in pieces:
        size += piece
        writeback.advance(size)
    end = 0
    for offset, length in begun:
        assert offset == end
        assert length >= WRITEBACK_BYTES
        end += length
    assert size - end < WRITEBACK_BYTES


def test_a_file_that_was_begun_early_is_whole(tmp_path: Path) -> None:
    storage = Storage({"Video": tmp_path})
    storage.prepare()
    content = os.urandom(1 << 20) * 20
    with storage.incoming("Video", None) as incoming:
        for offset in range(0, len(content), 1 << 19):
            incoming.write(content[offset : offset + (1 << 19)])
        incoming.sync()
        assert incoming.publish(tmp_path / "whole.mp4")
    assert (tmp_path / "whole.mp4").read_bytes() == content


def test_what_cannot_be_begun_is_left_to_the_sync() -> None:
    start_writeback(-1, 0, WRITEBACK_BYTES)
    reading, writing = os.pipe()
    start_writeback(writing, 0, WRITEBACK_BYTES)
    os.close(reading)
    os.close(writing)
