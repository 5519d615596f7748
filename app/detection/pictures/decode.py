"""Decodes one untrusted still picture into an upright RGB frame, as far as it is not damaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from app.detection.detector import Frame
from app.detection.limits import MAX_PIXELS
from app.detection.pictures import heif
from app.detection.pictures.damage import fill_missing
from app.detection.pictures.grayscale import is_deep_grayscale, to_eight_bits
from app.detection.pictures.partial import decode_partially, mark_missing_tiles
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
    """Return the first picture of an open file as frame 0 at 0 seconds.

    `fit` is the longest useful side in pixels: a larger picture is reduced to it, keeping its proportions. Transparency
    is shown on white. The frame's warnings describe what is missing from a damaged picture; missing parts are grey.

    Raises MediaTooLarge, Undecodable if nothing can be decoded, or the disk's OSError.
    """
    source = PictureSource(file, max_pixels, fit)
    with _translate_decoder_errors():
        try:
            decoded = _decode_complete(source)
        except Exception as error:
            part = decode_partially(error, source)
            if part is None:
                raise
            decoded = part
        picture = _flatten(_reduce(_to_rgb(decoded), fit))
        orientation = _UPRIGHT.get(_orientation(decoded.image))
    if orientation is not None:
        picture = picture.transpose(orientation)
    return Frame(index=0, time=0.0, picture=np.array(picture), warnings=decoded.warnings)


def _decode_complete(source: PictureSource) -> Decoded:
    """Decode a picture that is not damaged; a HEIC may nevertheless lack tiles."""
    image = source.open()
    is_heif = image.format == "HEIF"
    image.load()
    missing = heif.find_missing_part(source.file) if is_heif else None
    return Decoded(image) if missing is None else mark_missing_tiles(image, missing)


@contextmanager
def _translate_decoder_errors() -> Iterator[None]:
    try:
        yield
    except (MediaTooLarge, Undecodable, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise Undecodable("this is not a complete JPEG, PNG, WebP, BMP, TIFF, GIF, HEIC or AVIF picture") from error
    except OSError as error:
        if error.errno is not None:  # an error of the disk, not of the decoder
            raise
        raise Undecodable(f"the picture is damaged: {error}") from error
    # Pillow's plugins raise any error of their parsers, from struct.error to AttributeError.
    except Exception as error:
        raise Undecodable(f"the picture is damaged: {str(error) or type(error).__name__}") from error


def _to_rgb(decoded: Decoded) -> Image.Image:
    """Convert to RGB, or to RGBA if the picture has transparency."""
    image = decoded.image
    if is_deep_grayscale(image.mode):
        image = to_eight_bits(image, decoded.unwritten)
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image if decoded.unwritten is None else fill_missing(image, decoded.unwritten)


def _reduce(image: Image.Image, fit: int | None) -> Image.Image:
    if fit is not None:
        image.thumbnail((fit, fit), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return image


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    background = Image.new("RGB", image.size, "white")
    background.paste(image, mask=image.getchannel("A"))
    return background


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # Broken EXIF data does not make a picture unreadable; its parser may raise anything.
    except Exception:  # noqa: BLE001
        return 1
