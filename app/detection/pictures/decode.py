"""One still picture, upright and in RGB, from an open file that nobody vouches for.

A damaged picture is decoded as far as it goes, and what is missing is said.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from app.detection.detector import Frame
from app.detection.limits import MAX_PIXELS
from app.detection.pictures import heif
from app.detection.pictures.damage import filled
from app.detection.pictures.grayscale import in_eight_bits, is_deep_grey
from app.detection.pictures.partial import part_after, without_tiles
from app.detection.pictures.source import Decoded, PictureSource
from app.errors import MediaTooLarge, Undecodable

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
    its proportions, so that fractions of it stay what they were. Transparency is shown on white. The frame's warnings
    say what of a damaged picture is missing, which is grey then.

    Raises MediaTooLarge, Undecodable where nothing of it can be decoded, or the OSError of the disk.
    """
    source = PictureSource(file, max_pixels, fit)
    with _faults_belong_to_the_picture():
        try:
            decoded = _whole(source)
        except Exception as fault:
            part = part_after(fault, source)
            if part is None:
                raise
            decoded = part
        picture = _flattened(_reduced(_in_colour(decoded), fit))
        orientation = _UPRIGHT.get(_orientation(decoded.image))
    if orientation is not None:
        picture = picture.transpose(orientation)
    return Frame(index=0, time=0.0, picture=np.array(picture), warnings=decoded.warnings)


def _whole(source: PictureSource) -> Decoded:
    """The picture of a sound file; a HEIC may lack some of its tiles all the same."""
    image = source.open()
    is_heif = image.format == "HEIF"
    image.load()
    lost = heif.lost_part(source.file) if is_heif else None
    return Decoded(image) if lost is None else without_tiles(image, lost)


@contextmanager
def _faults_belong_to_the_picture() -> Iterator[None]:
    try:
        yield
    except (MediaTooLarge, Undecodable, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise Undecodable("this is not a whole JPEG, PNG, WebP, BMP, TIFF, GIF, HEIC or AVIF picture") from error
    except OSError as error:
        if error.errno is not None:  # the disk's, not the decoder's
            raise
        raise Undecodable(f"the picture is damaged: {error}") from error
    # The plugins let any error of their parsing through, from struct.error to AttributeError.
    except Exception as error:
        raise Undecodable(f"the picture is damaged: {str(error) or type(error).__name__}") from error


def _in_colour(decoded: Decoded) -> Image.Image:
    """RGB, or RGBA where something shows through."""
    image = decoded.image
    if is_deep_grey(image.mode):
        image = in_eight_bits(image, decoded.unwritten)
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image if decoded.unwritten is None else filled(image, decoded.unwritten)


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
