"""Media ids: a sampled XXH64 whose cost does not depend on the file's size.

The sample does not cover the whole file, so equal ids do not mean equal content; `app.ingest` compares bytes.
"""

import os
import re
from typing import Protocol

import xxhash

SAMPLE_BYTES = 1024
SAMPLED_FROM_BYTES = 3 * SAMPLE_BYTES
VIRTUAL_PREFIX = "V"
MEDIA_ID = re.compile(r"[0-9a-f]{16}")
"""Matches the id of a stored media item, with `fullmatch`."""


class _ReadAt(Protocol):
    def __call__(self, length: int, offset: int, /) -> bytes: ...


def media_id_of_file(fd: int) -> str:
    """Return the id of an open file, 16 lowercase hex digits, with at most three preads.

    The file's position is not moved. Raises OSError if the file cannot be read and EOFError if it was truncated
    meanwhile.
    """

    def read_at(length: int, offset: int) -> bytes:
        piece = os.pread(fd, length, offset)
        if len(piece) != length:
            raise EOFError(f"The file ended at byte {offset + len(piece)}, expected {offset + length}.")
        return piece

    return _hash_sample(os.fstat(fd).st_size, read_at)


def media_id_of_bytes(content: bytes) -> str:
    """Return the id of content in memory, 16 lowercase hex digits."""
    return _hash_sample(len(content), lambda length, offset: content[offset : offset + length])


def virtual_id_of_bytes(content: bytes) -> str:
    """Return the id of content that is never stored: `V` and 16 lowercase hex digits."""
    return VIRTUAL_PREFIX + media_id_of_bytes(content)


def _hash_sample(size: int, read_at: _ReadAt) -> str:
    digest = xxhash.xxh64(size.to_bytes(8, "little"), seed=0)
    if size < SAMPLED_FROM_BYTES:
        digest.update(read_at(size, 0))
    else:
        for offset in (0, (size - SAMPLE_BYTES) // 2, size - SAMPLE_BYTES):
            digest.update(read_at(SAMPLE_BYTES, offset))
    return digest.hexdigest()
