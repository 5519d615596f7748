"""Decodes as much of a damaged picture as each format's decoder can give."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

from app.detection.pictures import heif, webp
from app.detection.pictures.damage import Mask, describe_missing, percent, salvage
from app.detection.pictures.source import Decoded, PictureSource, is_damage


def decode_partially(error: Exception, source: PictureSource) -> Decoded | None:
    """Return as much of the picture as can be decoded after `error`; None if that is nothing."""
    if not is_damage(error):
        return None
    try:
        return _decode_part(source, ends_early="truncated" in str(error).lower())
    except Exception as second_error:
        if is_damage(second_error):  # the first error says more
            return None
        raise


def _decode_part(source: PictureSource, *, ends_early: bool) -> Decoded | None:
    source.file.seek(0)
    if webp.is_webp(source.file.read(12)):
        return _decode_webp_rows(source)
    missing = heif.find_missing_part(source.file)
    if missing is not None:
        return _decode_padded_heif(source, missing)
    salvaged = salvage(source.open, ends_early=ends_early)
    if salvaged is None:
        return None
    return Decoded(salvaged.image, (salvaged.warning,), salvaged.unwritten)


def _decode_webp_rows(source: PictureSource) -> Decoded | None:
    still = webp.extract_first_still(source.file)
    size = webp.read_size(still[:30])
    if size is None:
        return None
    source.check_size(*size)
    rows = webp.decode_rows(still)
    if rows is None:
        return None
    missing = rows.height - len(rows.pixels)
    image = Image.fromarray(np.pad(rows.pixels, ((0, missing), (0, 0), (0, 0))))
    unwritten = _last_rows(image, missing)
    return Decoded(image, (describe_missing(unwritten, ends_early=webp.ends_early(source.file)),), unwritten)


def mark_missing_tiles(image: Image.Image, missing: heif.MissingPart) -> Decoded:
    """Mark the missing tiles of a grid: libheif gives them one colour, which the last pixel has too."""
    pixels = np.asarray(image)
    size = pixels.shape[:2] if missing.turns % 2 == 0 else pixels.shape[1::-1]
    last_pixel = np.zeros(size, dtype=np.bool_)
    last_pixel[-1, -1] = True
    unwritten = (pixels == pixels[missing.to_displayed(last_pixel)][0]).all(axis=2)
    return Decoded(image, (describe_missing(unwritten, ends_early=True),), unwritten)


def _decode_padded_heif(source: PictureSource, missing: heif.MissingPart) -> Decoded | None:
    """Decode a truncated picture with fillers, and mark its last rows, in proportion to the missing bytes."""
    image = _load_first(source, heif.pad_missing_part(source.file, missing)) if missing.share < 1 else None
    if image is None:
        return None
    stored = image if missing.turns % 2 == 0 or image.format != "HEIF" else image.transpose(Image.Transpose.TRANSPOSE)
    unwritten = _last_rows(stored, round(stored.height * missing.share))
    if image.format == "HEIF":  # an AVIF is returned as it is stored
        unwritten = missing.to_displayed(unwritten)
    warning = f"the picture ends early: about the last {percent(missing.share)} of its rows are missing"
    return Decoded(image, (warning,), unwritten)


def _load_first(source: PictureSource, files: Iterator[BinaryIO]) -> Image.Image | None:
    for file in files:
        try:
            image = source.open(file)
            image.load()
        except Exception as error:
            if not is_damage(error):
                raise
        else:
            return image
    return None


def _last_rows(image: Image.Image, rows: int) -> Mask:
    mask = np.zeros((image.height, image.width), dtype=np.bool_)
    mask[image.height - rows :] = True
    return mask
