"""The accepted file types: an allow-list of extensions, and the first bytes that each must start with.

The first bytes prevent a renamed file from being stored under a wrong type; whether the content decodes is decided by
the detection. Extensions of one container share a family, because cameras and programs mix them (`.mov` and `.mp4`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from app.errors import UnsupportedMedia

HEAD_BYTES = 4096
"""First bytes of a file that tell every family apart, including MPEG-TS that starts in the middle of a packet."""

Kind = Literal["Image", "Video"]
Family = Literal[
    "JPEG",
    "PNG",
    "WebP",
    "BMP",
    "TIFF",
    "GIF",
    "HEIC/AVIF",
    "MP4/QuickTime",
    "Matroska/WebM",
    "AVI",
    "MPEG-TS",
    "MPEG",
    "Windows Media",
    "Flash Video",
]


@dataclass(frozen=True, slots=True)
class MediaType:
    """The meaning of an extension; `content_type` is used to serve the file."""

    kind: Kind
    content_type: str
    family: Family


MEDIA_TYPES: Mapping[str, MediaType] = MappingProxyType(
    {
        "jpg": MediaType("Image", "image/jpeg", "JPEG"),
        "jpeg": MediaType("Image", "image/jpeg", "JPEG"),
        "jpe": MediaType("Image", "image/jpeg", "JPEG"),
        "jfif": MediaType("Image", "image/jpeg", "JPEG"),
        "png": MediaType("Image", "image/png", "PNG"),
        "webp": MediaType("Image", "image/webp", "WebP"),
        "bmp": MediaType("Image", "image/bmp", "BMP"),
        "tif": MediaType("Image", "image/tiff", "TIFF"),
        "tiff": MediaType("Image", "image/tiff", "TIFF"),
        "gif": MediaType("Image", "image/gif", "GIF"),
        "heic": MediaType("Image", "image/heic", "HEIC/AVIF"),
        "heif": MediaType("Image", "image/heif", "HEIC/AVIF"),
        "avif": MediaType("Image", "image/avif", "HEIC/AVIF"),
        "mp4": MediaType("Video", "video/mp4", "MP4/QuickTime"),
        "mov": MediaType("Video", "video/quicktime", "MP4/QuickTime"),
        "m4v": MediaType("Video", "video/x-m4v", "MP4/QuickTime"),
        "mkv": MediaType("Video", "video/x-matroska", "Matroska/WebM"),
        "webm": MediaType("Video", "video/webm", "Matroska/WebM"),
        "avi": MediaType("Video", "video/x-msvideo", "AVI"),
        "ts": MediaType("Video", "video/mp2t", "MPEG-TS"),
        "mts": MediaType("Video", "video/mp2t", "MPEG-TS"),
        "m2ts": MediaType("Video", "video/mp2t", "MPEG-TS"),
        "mpg": MediaType("Video", "video/mpeg", "MPEG"),
        "mpeg": MediaType("Video", "video/mpeg", "MPEG"),
        "wmv": MediaType("Video", "video/x-ms-wmv", "Windows Media"),
        "flv": MediaType("Video", "video/x-flv", "Flash Video"),
        "3gp": MediaType("Video", "video/3gpp", "MP4/QuickTime"),
        "insv": MediaType("Video", "video/mp4", "MP4/QuickTime"),  # recordings of Insta360 cameras
        "lrf": MediaType("Video", "video/mp4", "MP4/QuickTime"),  # low-resolution copies of DJI cameras
    }
)


def extension_of(name: str) -> str:
    """Return the lowercase extension of a file name without its dot. Raises UnsupportedMedia if it is not allowed."""
    _, dot, extension = name.rpartition(".")
    extension = extension.lower()
    if dot and extension in MEDIA_TYPES:
        return extension
    found = f'".{extension[:16]}"' if dot and extension else "no extension"
    raise UnsupportedMedia(f"the file name has {found}; allowed: {', '.join(MEDIA_TYPES)}")


def check_first_bytes(extension: str, head: bytes) -> None:
    """Raise UnsupportedMedia unless the file's first bytes belong to the extension's family.

    `extension` comes from `extension_of`. `head` holds the first HEAD_BYTES, or the whole file if it is shorter.
    """
    expected = MEDIA_TYPES[extension].family
    if not _SIGNATURES[expected](head):
        found = _family_of(head)
        are = f"are those of {found}" if found else "match no accepted file type"
        raise UnsupportedMedia(f"the file is named .{extension} ({expected}), but its first bytes {are}")


def _family_of(head: bytes) -> Family | None:
    return next((family for family, matches in _SIGNATURES.items() if matches(head)), None)


_BMP_INFO_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_STILL_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif"})
# An image sequence counts as a picture or a video depending on its extension.
_SEQUENCE_BRANDS = frozenset({b"hevc", b"hevx", b"hevm", b"hevs", b"msf1", b"avis"})
_OTHER_BRANDS = frozenset({b"crx ", b"jp2 ", b"jpx ", b"jxl "})
# QuickTime before 2001 has no `ftyp` box and starts with any of these.
_FIRST_BOXES = frozenset({b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"})
_TS_SYNC = b"G"
_TS_PACKETS = (188, 192, 204)
_TS_PACKETS_IN_A_ROW = 5  # sync bytes (the letter G) that rule out chance; a short file may have fewer
_MPEG_STARTS = (b"\0\0\1\xba", b"\0\0\1\xb3")  # a program stream's pack header, or a raw video's sequence header
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")


def _is_bmp(head: bytes) -> bool:
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_INFO_HEADER_SIZES


def _is_riff(head: bytes, form: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == form


def _brand(head: bytes) -> bytes | None:
    """Return the major brand of an ISO base media file, or None."""
    size, box = int.from_bytes(head[:4], "big"), head[4:8]
    return head[8:12] if box == b"ftyp" and size >= 16 else None


def _is_iso_video(head: bytes) -> bool:
    brand = _brand(head)
    if brand is not None:
        return brand not in _STILL_BRANDS | _OTHER_BRANDS
    size, box = int.from_bytes(head[:4], "big"), head[4:8]
    # Size 0: the box extends to the end of the file. Size 1: a 64-bit size follows the name.
    return box in _FIRST_BOXES and (size in (0, 1) or size >= 8)


def _is_transport_stream(head: bytes) -> bool:
    """Return whether several packets in a row start with a sync byte, at any offset of the first packet.

    Recordings may start in the middle of a packet. M2TS puts 4 bytes before each packet.
    """
    if _has_syncs(head[::188]) or _has_syncs(head[4::192]):
        return True
    in_a_row = _TS_SYNC * _TS_PACKETS_IN_A_ROW
    return any(
        head[start : start + _TS_PACKETS_IN_A_ROW * packet : packet] == in_a_row
        for packet in _TS_PACKETS
        for start in range(len(head) - (_TS_PACKETS_IN_A_ROW - 1) * packet)
    )


def _has_syncs(first_bytes: bytes) -> bool:
    """Return whether all bytes, at least two, are sync bytes, as in a short file."""
    return len(first_bytes) > 1 and first_bytes == _TS_SYNC * len(first_bytes)


_SIGNATURES: Mapping[Family, Callable[[bytes], bool]] = MappingProxyType(
    {
        "JPEG": lambda head: head.startswith(b"\xff\xd8\xff"),
        "PNG": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
        "WebP": lambda head: _is_riff(head, b"WEBP"),
        "BMP": _is_bmp,
        "TIFF": lambda head: head.startswith(_TIFF_MARKS),
        "GIF": lambda head: head.startswith((b"GIF87a", b"GIF89a")),
        "HEIC/AVIF": lambda head: _brand(head) in _STILL_BRANDS | _SEQUENCE_BRANDS,
        "MP4/QuickTime": _is_iso_video,
        "Matroska/WebM": lambda head: head.startswith(b"\x1aE\xdf\xa3"),
        "AVI": lambda head: _is_riff(head, b"AVI "),
        "MPEG": lambda head: head.startswith(_MPEG_STARTS),
        "Windows Media": lambda head: head.startswith(_ASF_HEADER),
        "Flash Video": lambda head: head.startswith(b"FLV\1"),
        "MPEG-TS": _is_transport_stream,
    }
)
