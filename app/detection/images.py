"""One still picture, upright and in RGB, from an open file that nobody vouches for.

The number of pixels is read from the header and judged before anything is decoded or allocated: a file of a few dozen
bytes can ask for gigabytes. Only the formats that this service accepts are tried, whatever the file claims to be.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

# Imported for what they register: Pillow imports every plugin it has when a wanted one is missing.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from app.detection.detector import Frame
from app.detection.limits import MAX_PIXELS
from app.errors import MediaTooLarge, Undecodable

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")

# Pillow's own check warns at one number and raises at its double, for the whole process; the one below is exact.
Image.MAX_IMAGE_PIXELS = None

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_picture(file: BinaryIO, *, max_pixels: int = MAX_PIXELS, fit: int | None = None) -> Frame:
    """The first picture of a file open for reading, as frame 0 at 0 seconds.

    `fit` is the longest side, in pixels, that the caller can make use of: a larger picture is reduced to it, keeping
    its proportions, so that fractions of it stay what they were. Transparency is shown on white.

    Raises MediaTooLarge, Undecodable, or the OSError of the disk.
    """
    with _faults_belong_to_the_picture():
        _judge_webp(file, max_pixels)
        with Image.open(file, formats=FORMATS) as image:
            _judge(*image.size, max_pixels)
            _draft(image, fit)
            image.load()
            picture = _flattened(_reduced(_in_colour(image), fit))
            orientation = _UPRIGHT.get(_orientation(image))
    if orientation is not None:
        picture = picture.transpose(orientation)
    return Frame(index=0, time=0.0, picture=np.array(picture))


@contextmanager
def _faults_belong_to_the_picture() -> Iterator[None]:
    try:
        yield
    except (MediaTooLarge, Undecodable, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise Undecodable("this is not a whole JPEG, PNG, WebP, BMP or TIFF picture") from error
    except OSError as error:
        if error.errno is not None:  # the disk's, not the decoder's
            raise
        raise Undecodable(f"the picture is damaged: {error}") from error
    # The plugins let any error of their parsing through, from struct.error to AttributeError.
    except Exception as error:
        raise Undecodable(f"the picture is damaged: {str(error) or type(error).__name__}") from error


def _judge(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise Undecodable(f"the picture is {width} by {height} pixels")
    if width * height > max_pixels:
        raise MediaTooLarge(f"the picture has {width} by {height} pixels; at most {max_pixels} are accepted")


def _judge_webp(file: BinaryIO, max_pixels: int) -> None:
    """Opening a WebP already allocates its canvas, twice, so its header is read here first."""
    head = file.read(30)
    file.seek(0)
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return
    head = head.ljust(30, b"\0")
    match head[12:16]:
        case b"VP8X":
            width, height = int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", head, 26))
        case _:
            raise Undecodable("the WebP picture is damaged: its first chunk is unknown")
    _judge(width, height, max_pixels)


def _draft(image: Image.Image, fit: int | None) -> None:
    """Has a JPEG decoded at an eighth, a quarter or half its size where that is still no less than `fit`."""
    longest = max(image.size)
    if fit is not None and longest > fit:
        image.draft("RGB", (max(1, image.width * fit // longest), max(1, image.height * fit // longest)))


def _in_colour(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where something shows through. 16 bits keep their upper eight; wider ranges are stretched."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:
        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        darkest, brightest = float(values.min()), float(values.max())
        values = (values - darkest) * (255 / max(brightest - darkest, 1e-9))
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _reduced(image: Image.Image, fit: int | None) -> Image.Image:
    if fit is not None:
        image.thumbnail((fit, fit), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return image


def _flattened(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    background = Image.new("RGB", image.size, "white")
    background.paste(image, mask=image.getchannel("A"))
    return background


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # Broken EXIF data does not make a sound picture unreadable, and its parser raises as freely as the plugins do.
    except Exception:  # noqa: BLE001
        return 1
