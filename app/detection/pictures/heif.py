"""HEIC: Pillow's plugin for it, and what a HEIC or AVIF that ends early has lost.

libheif leaves out, without a word, the tiles of a grid that lie beyond the file's end, and opens no single picture that
reaches beyond it; libavif opens neither. Where the parts of a picture lie is said at the beginning of its file.
"""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pi_heif
from numpy.typing import NDArray

_MAX_META_BYTES = 16 * 1024**2
_MAX_BOXES_BEFORE_META = 16
_MAX_PADDING_BYTES = 64 * 1024**2
_FILLERS = (b"\0", b"\xff", b"\x80")
_DERIVED_FROM = b"dimg"


def register() -> None:
    """Have Pillow open HEIC: the main picture alone, decoded on one thread."""
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


@dataclass(frozen=True, slots=True)
class Lost:
    """What lies beyond the end of a file: which share of its main picture's bytes, 0..1, in how many of its tiles.

    `end` is where the file should end. A picture is stored, then turned so many quarter turns counter-clockwise, then
    mirrored, left to right or top to bottom.
    """

    share: float
    tiles: int
    end: int
    turns: int
    mirrored: str | None

    def as_shown(self, stored: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Pixels of the stored picture where libheif shows them."""
        turned = np.rot90(stored, self.turns)
        match self.mirrored:
            case "left to right":
                return turned[:, ::-1]
            case "top to bottom":
                return turned[::-1]
        return turned


def lost_part(file: BinaryIO) -> Lost | None:
    """What the main picture of a HEIC or AVIF has lost; None where it is whole, or where that cannot be told."""
    size = file.seek(0, os.SEEK_END)
    meta = _meta_of(file)
    if meta is None:
        return None
    try:
        extents = _extents_of_primary(meta)
    except (struct.error, KeyError, IndexError):
        return None
    total = sum(end - start for one in extents for start, end in one)
    beyond = sum(min(end - start, max(0, end - size)) for one in extents for start, end in one)
    if not beyond:
        return None
    ends = [max((end for _, end in one), default=0) for one in extents]
    mirror = _property(meta, b"imir")
    mirrored = None if mirror is None else "left to right" if mirror & 1 else "top to bottom"
    turns = (_property(meta, b"irot") or 0) & 3
    return Lost(beyond / total, sum(end > size for end in ends), max(ends), turns, mirrored)


def padded(file: BinaryIO, lost: Lost) -> Iterator[BinaryIO]:
    """The file with something in place of what it has lost, for a decoder that would not begin otherwise.

    Several times: whether AV1 can be decoded at all with what follows is chance, about nine times in ten.
    """
    file.seek(0)
    content = file.read()
    missing = min(lost.end - len(content), _MAX_PADDING_BYTES)
    for filler in _FILLERS:
        yield io.BytesIO(content + filler * missing)


def _meta_of(file: BinaryIO) -> bytes | None:
    """The content of the file's `meta` box, whole."""
    at = 0
    for _ in range(_MAX_BOXES_BEFORE_META):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return None
        size, name = struct.unpack_from(">I4s", head)
        start = 8
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
            start = 16
        if size < start:
            return None
        if name == b"meta":
            file.seek(at + start)
            content = file.read(min(size - start, _MAX_META_BYTES))
            return content if len(content) == size - start else None
        at += size
    return None


def _extents_of_primary(meta: bytes) -> list[list[tuple[int, int]]]:
    """Beginning and end, in the file, of each part of each coded picture that the main one is made of."""
    boxes = dict(_boxes(meta, 4))
    primary = _number(boxes[b"pitm"], 4, wide=boxes[b"pitm"][0] > 0)[0]
    places = dict(_places(boxes[b"iloc"]))
    coded = _derived_from(boxes.get(b"iref"), primary) or [primary]
    return [places.get(item, []) for item in coded]


def _property(meta: bytes, name: bytes) -> int | None:
    """The first byte of the first property of that name; None where there is none."""
    at = meta.find(name)
    return meta[at + 4] if 0 <= at < len(meta) - 4 else None


def _boxes(content: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        if size < 8:
            return
        yield name, content[at + 8 : at + size]
        at += size


def _number(content: bytes, at: int, *, wide: bool) -> tuple[int, int]:
    """An item's number, and where what follows it begins."""
    (number,) = struct.unpack_from(">I" if wide else ">H", content, at)
    return number, at + (4 if wide else 2)


def _derived_from(iref: bytes | None, item: int) -> list[int]:
    """The items that a grid is made of; none for a picture that is coded itself."""
    if iref is None:
        return []
    wide = iref[0] > 0
    for name, content in _boxes(iref, 4):
        source, at = _number(content, 0, wide=wide)
        if name == _DERIVED_FROM and source == item:
            (count,) = struct.unpack_from(">H", content, at)
            return list(struct.unpack_from(f">{count}{'I' if wide else 'H'}", content, at + 2))
    return []


def _places(iloc: bytes) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """The parts of each item as beginning and end; none for one that lies elsewhere than in the file itself."""
    version = iloc[0]
    offset_bytes, length_bytes = iloc[4] >> 4, iloc[4] & 15
    base_bytes, index_bytes = iloc[5] >> 4, iloc[5] & 15 if version else 0
    count, at = _number(iloc, 6, wide=version > 1)
    for _ in range(count):
        item, at = _number(iloc, at, wide=version > 1)
        method = 0
        if version:
            (method,) = struct.unpack_from(">H", iloc, at)
            at += 2
        base = int.from_bytes(iloc[at + 2 : at + 2 + base_bytes], "big")
        at += 2 + base_bytes
        (parts,) = struct.unpack_from(">H", iloc, at)
        at += 2
        bytes_each = index_bytes + offset_bytes + length_bytes
        if at + parts * max(1, bytes_each) > len(iloc):
            raise struct.error("more parts than there is room for")
        extents = []
        for _ in range(parts):
            at += index_bytes
            start = base + int.from_bytes(iloc[at : at + offset_bytes], "big")
            at += offset_bytes
            extents.append((start, start + int.from_bytes(iloc[at : at + length_bytes], "big")))
            at += length_bytes
        yield item, extents if method == 0 else []
