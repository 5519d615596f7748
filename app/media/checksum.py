"""The checksum kept of each stored file: XXH3-128 over every byte, as 32 lowercase hex digits.

It tells later whether the disk still gives back what came in, which the id cannot: that samples a file. It is fast
enough to be taken while bytes pass on to the disk, and no protection against somebody who changes a file on purpose.
"""

import os

import xxhash

READ_BYTES = 1 << 20
"""Read at once: calls of more than 64 KiB hash without the interpreter's lock, so other threads go on meanwhile."""


def new_checksum() -> xxhash.xxh3_128:
    """To be fed with `update`, and asked with `hexdigest`."""
    return xxhash.xxh3_128()


def checksum_of_bytes(content: bytes) -> str:
    """The checksum of content in memory."""
    return xxhash.xxh3_128_hexdigest(content)


def checksum_of_file(fd: int) -> str:
    """The checksum of an open file, read from start to end; its position is left alone. Raises OSError."""
    digest, buffer, offset = new_checksum(), bytearray(READ_BYTES), 0
    while count := os.preadv(fd, [buffer], offset):
        digest.update(memoryview(buffer)[:count])
        offset += count
    return digest.hexdigest()
