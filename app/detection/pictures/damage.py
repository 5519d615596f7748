"""Decodes damaged pictures as far as possible, and describes what is missing.

Pillow can be told to continue after the end of a file, and leaves pixels without data unchanged. The picture is
therefore decoded twice, over black and over white: a pixel that differs was never written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

GREY = 114
"""The value of missing pixels; models see the same grey around a letterboxed picture."""

Mask = NDArray[np.bool_]

_LIBJPEG_GREYS = (127, 128)
_BAND_ROWS = 256


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A partially decoded picture in Pillow's mode for it; `unwritten` masks its missing pixels."""

    image: Image.Image
    unwritten: Mask
    warning: str


def salvage(open_image: Callable[[], Image.Image], *, ends_early: bool) -> Salvaged | None:
    """Decode as much as possible of a damaged picture; None if that is nothing.

    `open_image` opens the picture anew at each call. Raises Pillow's errors.
    """
    with _tolerate_truncation():
        image = _load_over(0, open_image())
        if image.format in {"JPEG", "MPO"}:  # libjpeg writes grey where it has no data
            unwritten = _grey_rows(np.asarray(image))
        else:
            unwritten = _differences(image, _load_over(255, open_image()))
    if unwritten.all():
        return None
    is_coarse = bool(image.info.get("progressive"))
    return Salvaged(image, unwritten, describe_missing(unwritten, ends_early=ends_early, is_coarse=is_coarse))


def describe_missing(unwritten: Mask, *, ends_early: bool, is_coarse: bool = False) -> str:
    """Describe what is missing. `is_coarse` means that the end of the file holds finer details of the whole picture."""
    what = "the picture ends early" if ends_early else "the picture is damaged"
    if not unwritten.any():
        return f"{what}: its finer details may be missing" if is_coarse else f"{what}, but all its rows are there"
    share = percent(float(unwritten.mean()))
    if _is_scattered(unwritten):
        return f"{what}: {share} of its pixels are missing"
    return f"{what}: the {'first' if unwritten[0].all() else 'last'} {share} of its rows are missing"


def percent(share: float) -> str:
    """Format a share between 0 and 1 as 1 % to 99 %."""
    return f"{min(99, max(1, round(share * 100)))} %"


def fill_missing(picture: Image.Image, unwritten: Mask) -> Image.Image:
    """Return the RGB or RGBA picture with its missing pixels filled.

    In an interlaced picture each takes the colour of the nearest pixel of a coarser pass, as in viewers; others are
    grey.
    """
    pixels, missing = np.array(picture), unwritten
    if _is_scattered(unwritten):
        missing = _fill_from_coarser_passes(pixels, unwritten)
    pixels[missing] = (GREY, GREY, GREY, 255)[: pixels.shape[2]]
    return Image.fromarray(pixels)


def _fill_from_coarser_passes(pixels: NDArray[np.uint8], unwritten: Mask) -> Mask:
    """Fill each missing pixel of an interlaced picture from a coarser pass; return the mask of those that remain."""
    missing = unwritten.copy()
    every_row, every_column = (np.arange(side) for side in missing.shape)
    for step in (2, 4, 8):
        rows, columns = every_row // step * step, every_column // step * step
        for places in (np.ix_(every_row, columns), np.ix_(rows, every_column), np.ix_(rows, columns)):
            known = missing & ~unwritten[places]
            pixels[known] = pixels[places][known]
            missing &= ~known
    return missing


def _is_scattered(unwritten: Mask) -> bool:
    """Return whether pixels are missing elsewhere than in the first or the last rows: in tiles or between rows."""
    rows = unwritten.all(axis=1)
    partial_rows = np.count_nonzero(unwritten.any(axis=1)) - np.count_nonzero(rows)
    return bool(partial_rows > 1 or np.count_nonzero(np.diff(rows)) > 1)


@contextmanager
def _tolerate_truncation() -> Iterator[None]:
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _load_over(shade: int, image: Image.Image) -> Image.Image:
    """Decode the image onto pixels that have the value `shade` in each channel."""
    if not isinstance(image, ImageFile.ImageFile):
        raise TypeError("the image was not opened from a file")
    prepare = image.load_prepare

    def prepare_and_fill() -> None:
        prepare()
        image.im.paste(shade if image.im.bands == 1 else (shade,) * image.im.bands, (0, 0, *image.im.size))

    image.load_prepare = prepare_and_fill  # type: ignore[method-assign]
    try:
        image.load()
    except OSError as error:
        if error.errno is not None:  # an error of the disk
            raise
        image.load()  # libtiff wrote what it could before it reported the damage
    return image


def _differences(first: Image.Image, second: Image.Image) -> Mask:
    """Return a mask of the pixels that differ, computed in bands to save memory."""
    width, height = first.size
    mask = np.empty((height, width), dtype=np.bool_)
    for top in range(0, height, _BAND_ROWS):
        box = (0, top, width, min(height, top + _BAND_ROWS))
        differs = np.asarray(first.crop(box)) != np.asarray(second.crop(box))
        mask[top : box[3]] = differs.any(axis=2) if differs.ndim == 3 else differs
    return mask


def _grey_rows(pixels: NDArray[np.uint8]) -> Mask:
    """Return a mask of the rows at the end that contain only libjpeg's grey."""
    is_grey = np.isin(pixels, _LIBJPEG_GREYS)
    rows = is_grey.reshape(len(pixels), -1).all(axis=1)
    missing: Mask = np.logical_and.accumulate(np.flip(rows), dtype=np.bool_)[::-1]
    return np.broadcast_to(missing[:, None], pixels.shape[:2]).copy()
