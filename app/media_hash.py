"""Media identity: a sampled XXH64 whose cost does not depend on the size of the file.

The sample does not cover the whole file, so equal ids never mean equal content; `app.ingest` compares bytes.
"""

import os
import re
from typing import Protocol

import xxhash

SAMPLE_BYTES = 1024
SAMPLED_FROM_BYTES = 3 * SAMPLE_BYTES
VIRTUAL_PREFIX = "V"
MEDIA_ID = re.compile(r"[0-9a-f]{16}")
"""What the id of a stored media looks like, for `fullmatch`."""


class _ReadAt(Protocol):
    def __call__(self, length: int, offset: int, /) -> bytes: ...


def media_id_of_file(fd: int) -> str:
    """The id of an open file's content, 16 lowercase hex digits, by at most three preads.

    The file's position is not moved. Raises OSError where the file cannot be read, EOFError where it is shorter
    than its own size says (it was truncated meanwhile).
    """

    def read_at(length: int, offset: int) -> bytes:
        piece = os.pread(fd, length, offset)
        if len(piece) != length:
            raise EOFError(f"The file ended at byte {offset + len(piece)}; {offset + length} were expected.")
        return piece

    return _sampled(os.fstat(fd).st_size, read_at)


def media_id_of_bytes(content: bytes) -> str:
    """The id of content in memory, 16 lowercase hex digits."""
    return _sampled(len(content), lambda length, offset: content[offset : offset + length])


def virtual_id_of_bytes(content: bytes) -> str:
    """The id of content that is processed in memory and never stored: `V` and 16 lowercase hex digits."""
    return VIRTUAL_PREFIX + media_id_of_bytes(content)


def _sampled(size: int, read_at: _ReadAt) -> str:
    digest = xxhash.xxh64(size.to_bytes(8, "little"), seed=0)
    if size < SAMPLED_FROM_BYTES:
        digest.update(read_at(size, 0))
    else:
        for offset in (0, (size - SAMPLE_BYTES) // 2, size - SAMPLE_BYTES):
            digest.update(read_at(SAMPLE_BYTES, offset))
    return digest.hexdigest()
