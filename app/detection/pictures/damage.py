"""Damaged pictures, decoded as far as they go: which pixels were never written, and words for what is missing.

Pillow goes on behind the end of a file if it is told to, and leaves the pixels that it has no data for as they were
before. So a picture is decoded twice, over black and over white: a pixel that differs was never written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

GREY = 114
"""What stands where nothing was decoded: what models see around a picture, too."""

Mask = NDArray[np.bool_]

_LIBJPEG_GREYS = (127, 128)
_BAND_ROWS = 256


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A picture as far as it was decoded, in Pillow's mode for it; `unwritten` are its missing pixels."""

    image: Image.Image
    unwritten: Mask
    warning: str


def salvage(open_image: Callable[[], Image.Image], *, ends_early: bool) -> Salvaged | None:
    """What can be decoded of a picture that cannot be decoded as a whole; None where it is nothing.

    `open_image` opens it anew at each call. Raises what Pillow raises.
    """
    with _pressing_on():
        image = _loaded_over(0, open_image())
        if image.format in {"JPEG", "MPO"}:  # libjpeg itself writes grey where it has no data
            unwritten = _grey_rows(np.asarray(image))
        else:
            unwritten = _differences(image, _loaded_over(255, open_image()))
    if unwritten.all():
        return None
    is_coarse = bool(image.info.get("progressive"))
    return Salvaged(image, unwritten, in_words(unwritten, ends_early=ends_early, is_coarse=is_coarse))


def in_words(unwritten: Mask, *, ends_early: bool, is_coarse: bool = False) -> str:
    """What is missing of a picture; `is_coarse` where its last part holds the finer details of all of it."""
    what = "the picture ends early" if ends_early else "the picture is damaged"
    if not unwritten.any():
        return f"{what}: its finer details may be missing" if is_coarse else f"{what}, but all its rows are there"
    share = percent(float(unwritten.mean()))
    if _is_scattered(unwritten):
        return f"{what}: {share} of its pixels are missing"
    return f"{what}: the {'first' if unwritten[0].all() else 'last'} {share} of its rows are missing"


def percent(share: float) -> str:
    """A share above 0 and below 1 in words: at least one per cent, at most 99."""
    return f"{min(99, max(1, round(share * 100)))} %"


def filled(picture: Image.Image, unwritten: Mask) -> Image.Image:
    """The picture in RGB or RGBA with something in its missing pixels.

    Of an interlaced picture each takes the colour of the nearest coarser one that is there, as viewers show it; the
    others are grey.
    """
    pixels, missing = np.array(picture), unwritten
    if _is_scattered(unwritten):
        missing = _spread(pixels, unwritten)
    pixels[missing] = (GREY, GREY, GREY, 255)[: pixels.shape[2]]
    return Image.fromarray(pixels)


def _spread(pixels: NDArray[np.uint8], unwritten: Mask) -> Mask:
    """Spread the pixels that are there, each over what it stands for in an interlaced picture; returns what remains."""
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
    """Whether pixels are missing in other places than the first or the last rows: of tiles, or between the lines."""
    rows = unwritten.all(axis=1)
    partly = np.count_nonzero(unwritten.any(axis=1)) - np.count_nonzero(rows)
    return bool(partly > 1 or np.count_nonzero(np.diff(rows)) > 1)


@contextmanager
def _pressing_on() -> Iterator[None]:
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _loaded_over(shade: int, image: Image.Image) -> Image.Image:
    """The image, decoded onto pixels that all have that value in each channel."""
    if not isinstance(image, ImageFile.ImageFile):
        raise TypeError("an image that was opened from a file is wanted")
    prepare = image.load_prepare

    def prepare_and_fill() -> None:
        prepare()
        image.im.paste(shade if image.im.bands == 1 else (shade,) * image.im.bands, (0, 0, *image.im.size))

    image.load_prepare = prepare_and_fill  # type: ignore[method-assign]
    try:
        image.load()
    except OSError as error:
        if error.errno is not None:  # the disk's
            raise
        image.load()  # libtiff has written what it could before it said that the rest is damaged
    return image


def _differences(first: Image.Image, second: Image.Image) -> Mask:
    """Which pixels differ; band by band, since arrays of both would be as large as both."""
    width, height = first.size
    mask = np.empty((height, width), dtype=np.bool_)
    for top in range(0, height, _BAND_ROWS):
        box = (0, top, width, min(height, top + _BAND_ROWS))
        differs = np.asarray(first.crop(box)) != np.asarray(second.crop(box))
        mask[top : box[3]] = differs.any(axis=2) if differs.ndim == 3 else differs
    return mask


def _grey_rows(pixels: NDArray[np.uint8]) -> Mask:
    """The rows at the end that are nothing but libjpeg's grey."""
    is_grey = np.isin(pixels, _LIBJPEG_GREYS)
    rows = is_grey.reshape(len(pixels), -1).all(axis=1)
    missing: Mask = np.logical_and.accumulate(np.flip(rows), dtype=np.bool_)[::-1]
    return np.broadcast_to(missing[:, None], pixels.shape[:2]).copy()
