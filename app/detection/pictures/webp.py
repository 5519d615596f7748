"""What Pillow does not say of a WebP: its size before anything is allocated, and the rows of one that ends early.

Pillow decodes whole files only. libwebp, which Pillow's module brings into the process, decodes row by row as well;
that part of it is called directly.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import _webp

_RGBA = 1
_GOES_ON = (0, 5)  # decoded, and waiting for more
_PIECE_BYTES = 16 * 1024
_ANIMATION_FRAME_HEADER = 16
_ALPHA = 0x10


@dataclass(frozen=True, slots=True)
class Rows:
    """As many of a picture's rows as its file gives: [rows, width, 4] in RGBA, of `height`."""

    pixels: NDArray[np.uint8]
    height: int


def size_in_header(head: bytes) -> tuple[int, int] | None:
    """Width and height as the first 30 bytes of a WebP tell them; None where its first chunk is unknown."""
    head = head.ljust(30, b"\0")
    match head[12:16]:
        case b"VP8X":
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            return None


def is_webp(head: bytes) -> bool:
    """Whether a file begins as a WebP does."""
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def ends_early(file: BinaryIO) -> bool:
    """Whether a WebP says that it is longer than it is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(4)
    return size < 8 + int.from_bytes(file.read(4), "little")


def first_still(file: BinaryIO) -> bytes:
    """The whole file, or the first picture of an animation as a file of its own; where it ends early, so does this.

    Raises ValueError where an animation ends before its first picture.
    """
    file.seek(0)
    content = file.read()
    for name, start, end in _chunks(content, 12):
        if name == b"ANMF":
            return _as_file(content[start + _ANIMATION_FRAME_HEADER : end])
        if name not in (b"VP8X", b"ICCP", b"ANIM"):
            return content
    raise ValueError("the WebP picture ends before its first pixel")


def rows_of(still: bytes) -> Rows | None:
    """The rows that a still WebP gives, however early it ends; None where it gives none."""
    decoder = _LIBWEBP.WebPINewRGB(_RGBA, None, 0, 0)
    if not decoder:
        raise MemoryError
    try:
        # Piece by piece: of a piece with an error in it none of the rows is given.
        for start in range(0, len(still), _PIECE_BYTES):
            piece = still[start : start + _PIECE_BYTES]
            if _LIBWEBP.WebPIAppend(decoder, piece, len(piece)) not in _GOES_ON:
                break
        rows, width, height, stride = (ctypes.c_int() for _ in range(4))
        pixels = _LIBWEBP.WebPIDecGetRGB(decoder, *map(ctypes.byref, (rows, width, height, stride)))
        if not pixels or rows.value < 1:
            return None
        lines = np.ctypeslib.as_array(ctypes.cast(pixels, _BYTES), (rows.value, stride.value))
        return Rows(lines[:, : width.value * 4].reshape(rows.value, width.value, 4).copy(), height.value)
    finally:
        _LIBWEBP.WebPIDelete(decoder)


def _chunks(content: bytes, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, beginning and end of each chunk; the end of the last one may lie beyond that of the content."""
    while start + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, start)
        yield name, start + 8, start + 8 + size
        start += 8 + size + size % 2


def _as_file(frame: bytes) -> bytes:
    """One frame of an animation, which begins with its chunks, as a file of the length that they tell."""
    header, size = b"", 0
    for name, start, end in _chunks(frame, 0):
        size = end + end % 2
        if name in (b"VP8 ", b"VP8L"):
            sides = size_in_header(bytes(12) + frame[start - 8 : start + 22])
            if sides is not None and start > 8:
                # Something stands before the picture: its transparency, which wants the longer kind of header.
                header = b"VP8X" + struct.pack("<IB3x", 10, _ALPHA)
                header += b"".join((side - 1).to_bytes(3, "little") for side in sides)
            break
    return b"RIFF" + struct.pack("<I", 4 + len(header) + size) + b"WEBP" + header + frame


_BYTES = ctypes.POINTER(ctypes.c_uint8)


def _libwebp() -> Any:
    """The library that Pillow's module is linked with: a name is looked for in what a library depends on, too."""
    library = ctypes.CDLL(_webp.__file__)
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.WebPINewRGB.argtypes = [number, pointer, ctypes.c_size_t, number]
    library.WebPINewRGB.restype = pointer
    library.WebPIAppend.argtypes = [pointer, ctypes.c_char_p, ctypes.c_size_t]
    library.WebPIDecGetRGB.argtypes = [pointer, *[ctypes.POINTER(number)] * 4]
    library.WebPIDecGetRGB.restype = pointer
    library.WebPIDelete.argtypes = [pointer]
    library.WebPIDelete.restype = None
    return library


_LIBWEBP = _libwebp()
