"""Which files are taken in: an allow-list of extensions, and first bytes that agree with them.

The check of the first bytes keeps a renamed file from being stored under a type it does not have; whether the
content decodes is the detection's business. Extensions of one container share a family, because cameras and
programs use them as one (a `.mov` named `.mp4` plays everywhere).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from app.errors import UnsupportedMedia

HEAD_BYTES = 2048
"""How many first bytes tell every family apart: eight packets of the longer MPEG-TS kind fit into it."""

Kind = Literal["Image", "Video"]
Family = Literal["JPEG", "PNG", "WebP", "BMP", "TIFF", "MP4/QuickTime", "Matroska/WebM", "AVI", "MPEG-TS"]


@dataclass(frozen=True, slots=True)
class MediaType:
    """What an extension stands for; `content_type` is what the file is served as."""

    kind: Kind
    content_type: str
    family: Family


MEDIA_TYPES: Mapping[str, MediaType] = MappingProxyType(
    {
        "jpg": MediaType("Image", "image/jpeg", "JPEG"),
        "jpeg": MediaType("Image", "image/jpeg", "JPEG"),
        "png": MediaType("Image", "image/png", "PNG"),
        "webp": MediaType("Image", "image/webp", "WebP"),
        "bmp": MediaType("Image", "image/bmp", "BMP"),
        "tif": MediaType("Image", "image/tiff", "TIFF"),
        "tiff": MediaType("Image", "image/tiff", "TIFF"),
        "mp4": MediaType("Video", "video/mp4", "MP4/QuickTime"),
        "mov": MediaType("Video", "video/quicktime", "MP4/QuickTime"),
        "m4v": MediaType("Video", "video/x-m4v", "MP4/QuickTime"),
        "mkv": MediaType("Video", "video/x-matroska", "Matroska/WebM"),
        "webm": MediaType("Video", "video/webm", "Matroska/WebM"),
        "avi": MediaType("Video", "video/x-msvideo", "AVI"),
        "ts": MediaType("Video", "video/mp2t", "MPEG-TS"),
        "mts": MediaType("Video", "video/mp2t", "MPEG-TS"),
        "m2ts": MediaType("Video", "video/mp2t", "MPEG-TS"),
    }
)


def extension_of(name: str) -> str:
    """The lowercase extension of a file name, without its dot. Raises UnsupportedMedia if it is not allowed."""
    _, dot, extension = name.rpartition(".")
    extension = extension.lower()
    if dot and extension in MEDIA_TYPES:
        return extension
    found = f'".{extension[:16]}"' if dot and extension else "no extension"
    raise UnsupportedMedia(f"the file name has {found}; allowed: {', '.join(MEDIA_TYPES)}")


def check_first_bytes(extension: str, head: bytes) -> None:
    """Raise UnsupportedMedia unless `head`, the first HEAD_BYTES of the file, is of the extension's family.

    `extension` is one that `extension_of` returned; `head` is shorter only where the file is.
    """
    expected = MEDIA_TYPES[extension].family
    found = _family_of(head)
    if found != expected:
        are = f"are of {found}" if found else "are of no kind of file accepted here"
        raise UnsupportedMedia(f"the file is named .{extension} ({expected}), but its first bytes {are}")


def _family_of(head: bytes) -> Family | None:
    return next((family for family, matches in _SIGNATURES.items() if matches(head)), None)


_BMP_INFO_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_STILL_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"crx ", b"jp2 ", b"jpx ", b"jxl "})
# QuickTime before 2001 has no `ftyp`: such a file begins with whichever of these its writer put first.
_FIRST_BOXES = frozenset({b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"})
_TS_SYNC = 0x47


def _is_bmp(head: bytes) -> bool:
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_INFO_HEADER_SIZES


def _is_riff(head: bytes, form: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == form


def _is_iso_bmff(head: bytes) -> bool:
    size, box = int.from_bytes(head[:4], "big"), head[4:8]
    if box == b"ftyp":
        return size >= 16 and head[8:12] not in _STILL_BRANDS
    # 0: the box goes on to the end of the file; 1: its size is 64 bits wide and stands behind its name.
    return box in _FIRST_BOXES and (size in (0, 1) or size >= 8)


def _is_transport_stream(head: bytes) -> bool:
    # One sync byte is a letter G; a stream has one at the start of every packet. M2TS puts 4 bytes before each.
    return any(
        len(head) > start + packet and all(byte == _TS_SYNC for byte in head[start::packet])
        for start, packet in ((0, 188), (4, 192))
    )


_SIGNATURES: Mapping[Family, Callable[[bytes], bool]] = MappingProxyType(
    {
        "JPEG": lambda head: head.startswith(b"\xff\xd8\xff"),
        "PNG": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
        "WebP": lambda head: _is_riff(head, b"WEBP"),
        "BMP": _is_bmp,
        "TIFF": lambda head: head.startswith(_TIFF_MARKS),
        "MP4/QuickTime": _is_iso_bmff,
        "Matroska/WebM": lambda head: head.startswith(b"\x1aE\xdf\xa3"),
        "AVI": lambda head: _is_riff(head, b"AVI "),
        "MPEG-TS": _is_transport_stream,
    }
)
