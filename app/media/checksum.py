"""The checksum of a stored file: XXH3-128 over all bytes, as 32 lowercase hex digits.

It detects later changes of the file, which the sampled id cannot. It is fast enough to be computed while bytes are
written, and does not protect against deliberate changes.
"""

import os

import xxhash

READ_BYTES = 1 << 20
"""Bytes per read. Hashing more than 64 KiB at once releases the interpreter lock."""


def new_checksum() -> xxhash.xxh3_128:
    """Return a hash object with `update` and `hexdigest`."""
    return xxhash.xxh3_128()


def checksum_of_bytes(content: bytes) -> str:
    """Return the checksum of content in memory."""
    return xxhash.xxh3_128_hexdigest(content)


def checksum_of_file(fd: int) -> str:
    """Return the checksum of an open file from start to end, without moving its position. Raises OSError."""
    digest, buffer, offset = new_checksum(), bytearray(READ_BYTES), 0
    while count := os.preadv(fd, [buffer], offset):
        digest.update(memoryview(buffer)[:count])
        offset += count
    return digest.hexdigest()
