"""Registers the HEIC decoder with Pillow, and finds what a truncated HEIC or AVIF lacks.

libheif silently omits the tiles of a grid beyond the end of the file and refuses a single picture that reaches beyond
it; libavif refuses both. The item locations at the beginning of the file tell what is missing.
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
    """Have Pillow open the main picture of HEIC files, decoded on one thread."""
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


@dataclass(frozen=True, slots=True)
class MissingPart:
    """What a truncated file lacks of its main picture.

    `share` is the missing share of the picture's bytes, 0..1; `tiles` is the number of incomplete tiles; `end` is the
    size that the file should have. The stored picture is displayed after `turns` quarter turns counter-clockwise and
    then mirrored.
    """

    share: float
    tiles: int
    end: int
    turns: int
    mirrored: str | None

    def to_displayed(self, stored: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Transform a mask of the stored picture to the orientation in which libheif returns it."""
        turned = np.rot90(stored, self.turns)
        match self.mirrored:
            case "left to right":
                return turned[:, ::-1]
            case "top to bottom":
                return turned[::-1]
        return turned


def find_missing_part(file: BinaryIO) -> MissingPart | None:
    """Return what the main picture of a HEIC or AVIF lacks; None if it is complete or that cannot be determined."""
    size = file.seek(0, os.SEEK_END)
    meta = _meta_of(file)
    if meta is None:
        return None
    try:
        extents = _extents_of_primary(meta)
    except (struct.error, KeyError, IndexError):
        return None
    total = sum(end - start for item in extents for start, end in item)
    beyond = sum(min(end - start, max(0, end - size)) for item in extents for start, end in item)
    if not beyond:
        return None
    ends = [max((end for _, end in item), default=0) for item in extents]
    mirror = _property(meta, b"imir")
    mirrored = None if mirror is None else "left to right" if mirror & 1 else "top to bottom"
    turns = (_property(meta, b"irot") or 0) & 3
    return MissingPart(beyond / total, sum(end > size for end in ends), max(ends), turns, mirrored)


def pad_missing_part(file: BinaryIO, missing: MissingPart) -> Iterator[BinaryIO]:
    """Yield copies of the file with fillers for the missing part, so that a decoder accepts it.

    Several fillers, because an AV1 decoder accepts any one of them only about nine times in ten.
    """
    file.seek(0)
    content = file.read()
    filler_bytes = min(missing.end - len(content), _MAX_PADDING_BYTES)
    for filler in _FILLERS:
        yield io.BytesIO(content + filler * filler_bytes)


def _meta_of(file: BinaryIO) -> bytes | None:
    """Return the content of the file's `meta` box; None if it is missing or truncated."""
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
    """Return start and end in the file of each part of each coded item of the main picture."""
    boxes = dict(_boxes(meta, 4))
    primary = _number(boxes[b"pitm"], 4, wide=boxes[b"pitm"][0] > 0)[0]
    item_extents = dict(_item_extents(boxes[b"iloc"]))
    coded = _derived_from(boxes.get(b"iref"), primary) or [primary]
    return [item_extents.get(item, []) for item in coded]


def _property(meta: bytes, name: bytes) -> int | None:
    """Return the first byte of the first property of that name; None if there is none."""
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
    """Return an item's number and the position after it."""
    (number,) = struct.unpack_from(">I" if wide else ">H", content, at)
    return number, at + (4 if wide else 2)


def _derived_from(iref: bytes | None, item: int) -> list[int]:
    """Return the items that a grid consists of; empty for a picture that is coded itself."""
    if iref is None:
        return []
    wide = iref[0] > 0
    for name, content in _boxes(iref, 4):
        source, at = _number(content, 0, wide=wide)
        if name == _DERIVED_FROM and source == item:
            (count,) = struct.unpack_from(">H", content, at)
            return list(struct.unpack_from(f">{count}{'I' if wide else 'H'}", content, at + 2))
    return []


def _item_extents(iloc: bytes) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield start and end of the parts of each item; none for an item that is stored outside the file."""
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
            raise struct.error("the iloc box is shorter than its parts")
        extents = []
        for _ in range(parts):
            at += index_bytes
            start = base + int.from_bytes(iloc[at : at + offset_bytes], "big")
            at += offset_bytes
            extents.append((start, start + int.from_bytes(iloc[at : at + length_bytes], "big")))
            at += length_bytes
        yield item, extents if method == 0 else []
