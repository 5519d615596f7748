"""Picture files of a few dozen bytes whose headers claim huge sizes."""

import io
import struct
import zlib

from PIL import Image


def png(width: int, height: int) -> bytes:
    """Return a PNG of that size without pixel data."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    """Return a BMP of that size without pixel data."""
    return b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def lossless_webp(width: int, height: int) -> bytes:
    """Return a lossless WebP of 34 bytes with sides of at most 16384."""
    return _webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(9))


def lossy_webp(width: int, height: int) -> bytes:
    """Return a lossy WebP of 30 bytes with sides of at most 16383."""
    return _webp(b"VP8 ", b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height))


def extended_webp(width: int, height: int) -> bytes:
    """Return an extended WebP, as used for animations, with sides of at most 2**24."""
    return _webp(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


def _webp(chunk: bytes, payload: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 12 + len(payload)) + b"WEBP" + chunk + struct.pack("<I", len(payload)) + payload


def many_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG of one colour with its last scan repeated: small, valid, and slow to decode."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]
