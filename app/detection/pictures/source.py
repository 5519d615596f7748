"""One picture's file, opened and judged before anything of it is decoded.

The number of pixels is read from the header and judged before anything is allocated: a file of a few dozen bytes can
ask for gigabytes. Only the formats that this service accepts are tried, whatever the file claims to be.
"""

from dataclasses import dataclass
from typing import BinaryIO

# Imported for what they register: Pillow imports every plugin it has when a wanted one is missing.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from app.detection.pictures import heif, webp
from app.detection.pictures.damage import Mask
from app.errors import MediaTooLarge, Undecodable

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF")

# Pillow's own check warns at one number and raises at its double, for the whole process; the one below is exact.
Image.MAX_IMAGE_PIXELS = None
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
heif.register()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture as it is stored, in Pillow's mode for it; `unwritten` are pixels that could not be decoded."""

    image: Image.Image
    warnings: tuple[str, ...] = ()
    unwritten: Mask | None = None


@dataclass(frozen=True, slots=True)
class PictureSource:
    """A file open for reading, and what is asked of its picture.

    `fit` is the longest side, in pixels, that the caller can make use of; None for all there is.
    """

    file: BinaryIO
    max_pixels: int
    fit: int | None

    def open(self, file: BinaryIO | None = None) -> Image.Image:
        """The picture, judged and not yet decoded, from the file or from another that stands in for it."""
        file = file or self.file
        file.seek(0)
        self._judge_webp(file)
        file.seek(0)
        image = Image.open(file, formats=FORMATS)
        self.judge(*image.size)
        _draft(image, self.fit)
        return image

    def judge(self, width: int, height: int) -> None:
        """Raise Undecodable or MediaTooLarge where a picture of that size is not to be decoded."""
        if width < 1 or height < 1:
            raise Undecodable(f"the picture is {width} by {height} pixels")
        if width * height > self.max_pixels:
            raise MediaTooLarge(f"the picture has {width} by {height} pixels; at most {self.max_pixels} are accepted")

    def _judge_webp(self, file: BinaryIO) -> None:
        """Opening a WebP already allocates its canvas, twice, so its header is read here first."""
        head = file.read(30)
        if webp.is_webp(head):
            size = webp.size_in_header(head)
            if size is None:
                raise Undecodable("the WebP picture is damaged: its first chunk is unknown")
            self.judge(*size)


def is_damage(fault: Exception) -> bool:
    """Whether a picture may be to blame for it and some of it may be decoded nevertheless."""
    if isinstance(fault, MediaTooLarge | Undecodable | MemoryError):
        return False
    return not isinstance(fault, OSError) or fault.errno is None


def _draft(image: Image.Image, fit: int | None) -> None:
    """Has a JPEG decoded at an eighth, a quarter or half its size where that is still no less than `fit`."""
    longest = max(image.size)
    if fit is not None and longest > fit:
        image.draft("RGB", (max(1, image.width * fit // longest), max(1, image.height * fit // longest)))
