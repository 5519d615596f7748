"""HEIC files written box by box as phones write them: one coded picture, or a grid of coded tiles.

Pillow cannot write HEIC, and an encoder must not be distributed; PyAV's x265 encodes the tiles.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from PIL import Image

_PARAMETER_SETS = (32, 33, 34)  # of the video, of its sequence, of its picture
# Version 1, main still picture profile, level 3; 4:2:0 in eight bits; sizes of four bytes before each unit.
_HVCC_HEAD = bytes.fromhex("01 03 70000000 900000000000 5a f000 fc fd f8 f8 0000 0f")
_GRID, _FIRST_TILE = 1, 2
_IN_FILE, _IN_IDAT = 0, 1


@dataclass(frozen=True)
class _Tile:
    """A coded picture: its decoder configuration (a complete box) and its bytes."""

    configuration: bytes
    data: bytes


def heic(
    image: Image.Image, *, tile: int | None = None, turns: int = 0, mirrored: bool = False, brand: bytes = b"heic"
) -> bytes:
    """Return the picture as HEIC, in tiles of `tile` pixels if given.

    Its display takes `turns` quarter turns counter-clockwise, and then mirroring left to right if `mirrored`. The
    stored picture is transformed so that it is displayed as given.
    """
    stored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
    stored = stored.rotate(-90 * turns, expand=True)
    width, height = stored.size
    side = tile or max(width, height)
    columns, rows = -(-width // side), -(-height // side)
    tiles = [
        _coded(stored.crop((x * side, y * side, (x + 1) * side, (y + 1) * side)) if tile else stored)
        for y in range(rows)
        for x in range(columns)
    ]
    shown = [_full_box(b"ispe", struct.pack(">II", width, height))]
    if turns:
        shown.append(_box(b"irot", bytes([turns % 4])))
    if mirrored:
        shown.append(_box(b"imir", b"\1"))
    coded_size = (side, side) if tile else (width, height)
    coded = [tiles[0].configuration, _full_box(b"ispe", struct.pack(">II", *coded_size))]
    if tile:
        grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
        return _file(brand, coded, shown, [one.data for one in tiles], grid)
    return _file(brand, [*coded, *shown[1:]], [], [tiles[0].data], None)


def _coded(image: Image.Image) -> _Tile:
    """Encode one intra frame."""
    encoder = av.CodecContext.create("libx265", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = image.width, image.height, "yuv420p"
    encoder.time_base = Fraction(1)
    encoder.options = {"crf": "12", "x265-params": "log-level=none"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image.convert("RGB")), format="rgb24")
    frame.pts, frame.time_base = 0, Fraction(1)
    stream = b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))
    units = [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\1")[1:]]
    kinds = [unit[0] >> 1 & 63 for unit in units]
    sets = [(kind, units[kinds.index(kind)]) for kind in _PARAMETER_SETS]
    arrays = b"".join(struct.pack(">BHH", 0x80 | kind, 1, len(unit)) + unit for kind, unit in sets)
    picture = [unit for kind, unit in zip(kinds, units, strict=True) if kind < min(_PARAMETER_SETS)]
    data = b"".join(struct.pack(">I", len(unit)) + unit for unit in picture)
    return _Tile(_box(b"hvcC", _HVCC_HEAD + bytes([len(sets)]) + arrays), data)


def _file(
    brand: bytes, coded: Sequence[bytes], shown: Sequence[bytes], tiles: Sequence[bytes], grid: bytes | None
) -> bytes:
    """Build the file; `coded` are the properties of each tile, `shown` those of the grid."""
    numbers = range(_FIRST_TILE, _FIRST_TILE + len(tiles))
    head = _box(b"ftyp", brand + bytes(4) + b"mif1heic")
    infos = [_item(number, b"hvc1", hidden=grid is not None) for number in numbers]
    references = b""
    associations = [(number, range(1, 1 + len(coded))) for number in numbers]
    if grid is not None:
        infos.insert(0, _item(_GRID, b"grid", hidden=False))
        targets = struct.pack(f">HH{len(tiles)}H", _GRID, len(tiles), *numbers)
        references = _full_box(b"iref", _box(b"dimg", targets))
        associations.insert(0, (_GRID, range(1 + len(coded), 1 + len(coded) + len(shown))))
    primary = _GRID if grid is not None else _FIRST_TILE

    def meta(start: int) -> bytes:
        places, at = [] if grid is None else [(_GRID, _IN_IDAT, 0, len(grid))], start
        for number, tile in zip(numbers, tiles, strict=True):
            places.append((number, _IN_FILE, at, len(tile)))
            at += len(tile)
        parts = [
            _full_box(b"hdlr", bytes(4) + b"pict" + bytes(13)),
            _full_box(b"pitm", struct.pack(">H", primary)),
            _locations(places),
            _full_box(b"iinf", struct.pack(">H", len(infos)) + b"".join(infos)),
            references,
            _box(b"iprp", _box(b"ipco", b"".join([*coded, *shown])) + _associations(associations)),
            b"" if grid is None else _box(b"idat", grid),
        ]
        return _full_box(b"meta", b"".join(parts))

    start = len(head) + len(meta(0)) + 8
    return head + meta(start) + _box(b"mdat", b"".join(tiles))


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def _full_box(name: bytes, content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags) + content)


def _item(number: int, kind: bytes, *, hidden: bool) -> bytes:
    return _full_box(b"infe", struct.pack(">HH", number, 0) + kind + b"\0", version=2, flags=int(hidden))


def _locations(places: Sequence[tuple[int, int, int, int]]) -> bytes:
    entries = [struct.pack(">HHHHII", number, method, 0, 1, at, size) for number, method, at, size in places]
    return _full_box(b"iloc", b"\x44\0" + struct.pack(">H", len(places)) + b"".join(entries), version=1)


def _associations(items: Sequence[tuple[int, range]]) -> bytes:
    entries = [struct.pack(">HB", number, len(properties)) + bytes(properties) for number, properties in items]
    return _full_box(b"ipma", struct.pack(">I", len(items)) + b"".join(entries))
