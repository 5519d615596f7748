"""As much of a damaged picture as its decoder can give, each format in its own way."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

from app.detection.pictures import heif, webp
from app.detection.pictures.damage import Mask, in_words, percent, salvage
from app.detection.pictures.source import Decoded, PictureSource, is_damage


def part_after(fault: Exception, source: PictureSource) -> Decoded | None:
    """As much as can be decoded of a picture with such a fault; None where that is nothing."""
    if not is_damage(fault):
        return None
    try:
        return _part(source, ends_early="truncated" in str(fault).lower())
    except Exception as error:
        if is_damage(error):  # the first fault says more
            return None
        raise


def _part(source: PictureSource, *, ends_early: bool) -> Decoded | None:
    source.file.seek(0)
    if webp.is_webp(source.file.read(12)):
        return _rows_of_webp(source)
    lost = heif.lost_part(source.file)
    if lost is not None:
        return _padded_heif(source, lost)
    salvaged = salvage(source.open, ends_early=ends_early)
    if salvaged is None:
        return None
    return Decoded(salvaged.image, (salvaged.warning,), salvaged.unwritten)


def _rows_of_webp(source: PictureSource) -> Decoded | None:
    still = webp.first_still(source.file)
    size = webp.size_in_header(still[:30])
    if size is None:
        return None
    source.judge(*size)
    rows = webp.rows_of(still)
    if rows is None:
        return None
    missing = rows.height - len(rows.pixels)
    image = Image.fromarray(np.pad(rows.pixels, ((0, missing), (0, 0), (0, 0))))
    unwritten = _last_rows(image, missing)
    return Decoded(image, (in_words(unwritten, ends_early=webp.ends_early(source.file)),), unwritten)


def without_tiles(image: Image.Image, lost: heif.Lost) -> Decoded:
    """A grid whose last tiles are missing: libheif gives all of them the same colour, and its last pixel has it."""
    pixels = np.asarray(image)
    size = pixels.shape[:2] if lost.turns % 2 == 0 else pixels.shape[1::-1]
    last_pixel = np.zeros(size, dtype=np.bool_)
    last_pixel[-1, -1] = True
    unwritten = (pixels == pixels[lost.as_shown(last_pixel)][0]).all(axis=2)
    return Decoded(image, (in_words(unwritten, ends_early=True),), unwritten)


def _padded_heif(source: PictureSource, lost: heif.Lost) -> Decoded | None:
    """A picture that is coded as one gives no rows of its own: those of its last bytes are judged by their number."""
    image = _first_that_loads(source, heif.padded(source.file, lost)) if lost.share < 1 else None
    if image is None:
        return None
    stored = image if lost.turns % 2 == 0 or image.format != "HEIF" else image.transpose(Image.Transpose.TRANSPOSE)
    unwritten = _last_rows(stored, round(stored.height * lost.share))
    if image.format == "HEIF":  # an AVIF comes as it is stored
        unwritten = lost.as_shown(unwritten)
    words = f"the picture ends early: about the last {percent(lost.share)} of its rows are missing"
    return Decoded(image, (words,), unwritten)


def _first_that_loads(source: PictureSource, files: Iterator[BinaryIO]) -> Image.Image | None:
    for file in files:
        try:
            image = source.open(file)
            image.load()
        except Exception as fault:
            if not is_damage(fault):
                raise
        else:
            return image
    return None


def _last_rows(image: Image.Image, rows: int) -> Mask:
    mask = np.zeros((image.height, image.width), dtype=np.bool_)
    mask[image.height - rows :] = True
    return mask
