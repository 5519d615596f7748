"""Opens one picture's file and checks its size before anything is decoded.

The number of pixels is read from the header before memory is allocated, because a file of a few dozen bytes can claim
gigabytes. Only the accepted formats are tried, whatever the file's name or content claims.
"""

from dataclasses import dataclass
from typing import BinaryIO

# Imported to register the formats; Pillow imports every plugin if a requested one is missing.
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

# Pillow's own limit is process-wide and raises only at its double; `check_size` is exact.
Image.MAX_IMAGE_PIXELS = None
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
heif.register()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded picture as it is stored, in Pillow's mode for it; `unwritten` masks pixels that were not decoded."""

    image: Image.Image
    warnings: tuple[str, ...] = ()
    unwritten: Mask | None = None


@dataclass(frozen=True, slots=True)
class PictureSource:
    """An open file and the limits for its picture.

    `fit` is the longest useful side in pixels; None for the full size.
    """

    file: BinaryIO
    max_pixels: int
    fit: int | None

    def open(self, file: BinaryIO | None = None) -> Image.Image:
        """Open the picture without decoding it, from the file or from a substitute, and check its size."""
        file = file or self.file
        file.seek(0)
        self._check_webp_size(file)
        file.seek(0)
        image = Image.open(file, formats=FORMATS)
        self.check_size(*image.size)
        _draft(image, self.fit)
        return image

    def check_size(self, width: int, height: int) -> None:
        """Raise Undecodable or MediaTooLarge if a picture of that size must not be decoded."""
        if width < 1 or height < 1:
            raise Undecodable(f"the picture is {width} by {height} pixels")
        if width * height > self.max_pixels:
            raise MediaTooLarge(f"the picture has {width} by {height} pixels; at most {self.max_pixels} are accepted")

    def _check_webp_size(self, file: BinaryIO) -> None:
        """Check the size in a WebP's header, because opening a WebP already allocates its canvas twice."""
        head = file.read(30)
        if webp.is_webp(head):
            size = webp.read_size(head)
            if size is None:
                raise Undecodable("the WebP picture is damaged: its first chunk is unknown")
            self.check_size(*size)


def is_damage(error: Exception) -> bool:
    """Return whether the error comes from damage, so that a part of the picture may still be decodable."""
    if isinstance(error, MediaTooLarge | Undecodable | MemoryError):
        return False
    return not isinstance(error, OSError) or error.errno is None


def _draft(image: Image.Image, fit: int | None) -> None:
    """Decode a JPEG at an eighth, a quarter or half its size if that is no smaller than `fit`."""
    longest = max(image.size)
    if fit is not None and longest > fit:
        image.draft("RGB", (max(1, image.width * fit // longest), max(1, image.height * fit // longest)))
