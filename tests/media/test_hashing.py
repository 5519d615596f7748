"""Media ids against vectors of an independent program and a naive XXH64 in this file."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.media.hashing import media_id_of_bytes, media_id_of_file, virtual_id_of_bytes
from tests.paths import ROOT

VECTORS = json.loads((ROOT / "tests" / "vectors" / "media_ids.json").read_text())["ids"]
LYING_FILE = Path("/sys/devices/system/cpu/online")
MASK = (1 << 64) - 1
PRIMES = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
SIZES_AT_EDGES = (0, 1, 1023, 1024, 1025, 2047, 2048, 3071, 3072, 3073, 3074, 4096, 10_001)


def rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & MASK


def mixed(accumulator: int, lane: int) -> int:
    return rotated((accumulator + lane * PRIMES[1]) & MASK, 31) * PRIMES[0] & MASK


def naive_xxh64(data: bytes) -> int:
    """Return XXH64 with seed 0, step by step as in its specification."""
    first, second, third, fourth, fifth = PRIMES
    position = 0
    if len(data) >= 32:
        lanes = [(first + second) & MASK, second, 0, -first & MASK]
        while position + 32 <= len(data):
            for index in range(4):
                start = position + 8 * index
                lanes[index] = mixed(lanes[index], int.from_bytes(data[start : start + 8], "little"))
            position += 32
        digest = sum(rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            digest = ((digest ^ mixed(0, lane)) * first + fourth) & MASK
    else:
        digest = fifth
    digest = (digest + len(data)) & MASK
    while position + 8 <= len(data):
        digest ^= mixed(0, int.from_bytes(data[position : position + 8], "little"))
        digest = (rotated(digest, 27) * first + fourth) & MASK
        position += 8
    if position + 4 <= len(data):
        digest ^= int.from_bytes(data[position : position + 4], "little") * first & MASK
        digest = (rotated(digest, 23) * second + third) & MASK
        position += 4
    for byte in data[position:]:
        digest ^= byte * fifth & MASK
        digest = rotated(digest, 11) * first & MASK
    digest = (digest ^ (digest >> 33)) * second & MASK
    digest = (digest ^ (digest >> 29)) * third & MASK
    return digest ^ (digest >> 32)


def naive_id(content: bytes) -> str:
    """Return the id by its definition."""
    size = len(content)
    sample = content
    if size >= 3072:
        middle = (size - 1024) // 2
        sample = content[:1024] + content[middle : middle + 1024] + content[size - 1024 :]
    return f"{naive_xxh64(size.to_bytes(8, 'little') + sample):016x}"


def id_on_disk(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return media_id_of_file(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["size"]))
def test_every_vector_has_its_id_from_bytes_from_a_file_and_as_a_virtual_one(
    vector: dict[str, str | int], tmp_path: Path
) -> None:
    content = hashlib.shake_256(str(vector["seed"]).encode()).digest(int(vector["size"]))
    path = tmp_path / "content"
    path.write_bytes(content)
    assert media_id_of_bytes(content) == vector["id"]
    assert id_on_disk(path) == vector["id"]
    assert virtual_id_of_bytes(content) == f"V{vector['id']}"


def test_the_naive_hash_is_xxh64_by_its_published_answers() -> None:
    assert naive_xxh64(b"") == 0xEF46DB3751D8E999
    assert naive_xxh64(b"a") == 0xD24EC4F1A98C6E5B
    assert naive_xxh64(b"abc") == 0x44BC2CF5AD770999


@given(st.one_of(st.binary(max_size=200), st.binary(min_size=3000, max_size=3200), st.binary(max_size=9000)))
def test_any_content_has_the_id_of_the_naive_implementation(content: bytes) -> None:
    assert media_id_of_bytes(content) == naive_id(content)


@given(st.sampled_from(SIZES_AT_EDGES), st.integers(0, 1 << 32))
def test_around_every_edge_of_the_sample_file_and_bytes_agree_with_the_naive_one(size: int, seed: int) -> None:
    content = hashlib.shake_256(seed.to_bytes(8, "little")).digest(size)
    fd = os.memfd_create("content")
    try:
        os.write(fd, content)
        assert media_id_of_file(fd) == media_id_of_bytes(content) == naive_id(content)
    finally:
        os.close(fd)


def test_an_id_is_sixteen_digits_even_where_the_hash_begins_with_zeros() -> None:
    content = next(content for number in range(100_000) if naive_id(content := str(number).encode()).startswith("00"))
    assert media_id_of_bytes(content) == naive_id(content)
    assert len(media_id_of_bytes(content)) == 16


def test_a_byte_outside_the_sample_does_not_change_the_id_and_one_inside_does() -> None:
    content = bytearray(5001)
    plain = media_id_of_bytes(bytes(content))
    changed = []
    for offset in (0, 1023, 1024, 1987, 1988, 3011, 3012, 3976, 3977, 5000):
        content[offset] = 1
        changed.append(media_id_of_bytes(bytes(content)) != plain)
        content[offset] = 0
    assert changed == [True, True, False, False, True, True, False, False, True, True]


def test_the_position_of_the_file_is_left_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(bytes(5000))
    with path.open("rb", buffering=0) as file:
        file.seek(77)
        media_id_of_file(file.fileno())
        assert file.tell() == 77


@pytest.mark.skipif(not LYING_FILE.exists(), reason=f"there is no {LYING_FILE}, which claims more than it holds")
def test_a_file_that_is_shorter_than_it_says_is_an_error_and_not_an_id() -> None:
    fd = os.open(LYING_FILE, os.O_RDONLY)
    try:
        with pytest.raises(EOFError, match=", expected "):
            media_id_of_file(fd)
    finally:
        os.close(fd)


COUNT_READS = """
import os, sys
from app.media.hashing import media_id_of_file
fd = os.open(sys.argv[1], os.O_RDONLY)
def reads():
    figures = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
    return int(figures["syscr"]), int(figures["rchar"])
reads()
idle_before = reads(); idle_after = reads()
before = reads(); media_id_of_file(fd); after = reads()
for now, then, idle_now, idle_then in zip(after, before, idle_after, idle_before):
    print(now - then - (idle_now - idle_then))
"""


@pytest.mark.parametrize(
    ("size", "most_reads", "most_bytes"),
    [(10 << 30, 3, 3072), *(pytest.param(*cost, marks=pytest.mark.long) for cost in [(3071, 1, 3071), (0, 1, 0)])],
)
def test_the_cost_is_three_small_reads_however_large_the_file(
    size: int, most_reads: int, most_bytes: int, tmp_path: Path
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
    command = [sys.executable, "-c", COUNT_READS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    reads, read_bytes = map(int, done.stdout.split())
    # The counter's own line may grow by a digit between two reads.
    assert reads <= most_reads
    assert read_bytes <= most_bytes + 8


@pytest.mark.parametrize("as_id", [media_id_of_bytes, virtual_id_of_bytes])
def test_the_same_content_has_the_same_id_every_time(as_id: Callable[[bytes], str]) -> None:
    assert as_id(b"content" * 1000) == as_id(b"content" * 1000)
