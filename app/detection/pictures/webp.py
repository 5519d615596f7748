"""WebP functions that Pillow lacks: the size before anything is allocated, and the rows of a truncated file.

Pillow decodes only complete files. libwebp, which Pillow's module loads, can also decode row by row; this module calls
that part of it directly.
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
_CONTINUE_STATUSES = (0, 5)  # VP8_STATUS_OK, VP8_STATUS_SUSPENDED
_CHUNK_BYTES = 16 * 1024
_ANIMATION_FRAME_HEADER = 16
_ALPHA = 0x10


@dataclass(frozen=True, slots=True)
class DecodedRows:
    """The decoded rows of a picture: [rows, width, 4] in RGBA, of a picture of `height` rows."""

    pixels: NDArray[np.uint8]
    height: int


def read_size(head: bytes) -> tuple[int, int] | None:
    """Return width and height from the first 30 bytes of a WebP; None if its first chunk is unknown."""
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
    """Return whether a file starts with a WebP's signature."""
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def ends_early(file: BinaryIO) -> bool:
    """Return whether the file is shorter than its header says."""
    size = file.seek(0, os.SEEK_END)
    file.seek(4)
    return size < 8 + int.from_bytes(file.read(4), "little")


def extract_first_still(file: BinaryIO) -> bytes:
    """Return the file's content, or the first picture of an animation as a file of its own.

    The result is truncated if the file is. Raises ValueError if an animation ends before its first picture.
    """
    file.seek(0)
    content = file.read()
    for name, start, end in _chunks(content, 12):
        if name == b"ANMF":
            return _build_file(content[start + _ANIMATION_FRAME_HEADER : end])
        if name not in (b"VP8X", b"ICCP", b"ANIM"):
            return content
    raise ValueError("the WebP picture ends before its first pixel")


def decode_rows(still: bytes) -> DecodedRows | None:
    """Return the rows that can be decoded from a still WebP; None if there are none."""
    decoder = _LIBWEBP.WebPINewRGB(_RGBA, None, 0, 0)
    if not decoder:
        raise MemoryError
    try:
        # In chunks, because libwebp gives no row of a chunk with an error in it.
        for start in range(0, len(still), _CHUNK_BYTES):
            chunk = still[start : start + _CHUNK_BYTES]
            if _LIBWEBP.WebPIAppend(decoder, chunk, len(chunk)) not in _CONTINUE_STATUSES:
                break
        rows, width, height, stride = (ctypes.c_int() for _ in range(4))
        pixels = _LIBWEBP.WebPIDecGetRGB(decoder, *map(ctypes.byref, (rows, width, height, stride)))
        if not pixels or rows.value < 1:
            return None
        lines = np.ctypeslib.as_array(ctypes.cast(pixels, _BYTES), (rows.value, stride.value))
        return DecodedRows(lines[:, : width.value * 4].reshape(rows.value, width.value, 4).copy(), height.value)
    finally:
        _LIBWEBP.WebPIDelete(decoder)


def _chunks(content: bytes, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk; the last end may lie beyond the content."""
    while start + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, start)
        yield name, start + 8, start + 8 + size
        start += 8 + size + size % 2


def _build_file(frame: bytes) -> bytes:
    """Return one animation frame, which consists of chunks, as a file of its own."""
    header, size = b"", 0
    for name, start, end in _chunks(frame, 0):
        size = end + end % 2
        if name in (b"VP8 ", b"VP8L"):
            sides = read_size(bytes(12) + frame[start - 8 : start + 22])
            if sides is not None and start > 8:
                # An alpha chunk before the picture needs the extended header.
                header = b"VP8X" + struct.pack("<IB3x", 10, _ALPHA)
                header += b"".join((side - 1).to_bytes(3, "little") for side in sides)
            break
    return b"RIFF" + struct.pack("<I", 4 + len(header) + size) + b"WEBP" + header + frame


_BYTES = ctypes.POINTER(ctypes.c_uint8)


def _libwebp() -> Any:
    """Load the libwebp that Pillow's module is linked with; ctypes also searches a library's dependencies."""
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
