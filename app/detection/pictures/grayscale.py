"""Converts single-channel pictures of more than eight bits to the eight bits that a model sees.

Thermal cameras use a narrow band of their 16 bits, so that the upper eight bits alone would be almost black.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STRETCH_DIVISOR = 4
"""A picture that uses less than one part in this many of its 16 bits is stretched."""
_PERCENTILES = (0.5, 99.5)
_SAMPLES = 1 << 20
"""The number of values, spread evenly over the picture, that the percentiles are computed from."""


def is_deep_grayscale(mode: str) -> bool:
    """Return whether Pillow's mode is a single channel of more than eight bits."""
    return mode in {"I", "F"} or mode.startswith("I;16")


def to_eight_bits(image: Image.Image, unwritten: NDArray[np.bool_] | None = None) -> Image.Image:
    """Return a deep grayscale picture in mode L.

    16-bit values keep their upper eight bits, unless less than a quarter of the range lies between the 0.5 and 99.5
    percentiles; then these become black and white. 32-bit integers and floats are always stretched so; NaN counts as 0.
    `unwritten` pixels are ignored for the range.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        low, high = _range_of(values, unwritten)
        if high == low or (high - low) * _STRETCH_DIVISOR >= 1 << 16:
            return Image.fromarray((values >> 8).astype(np.uint8))
    else:
        values = np.nan_to_num(values.astype(np.float32, copy=False), posinf=0.0, neginf=0.0)
        low, high = _range_of(values, unwritten)
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1e-9))
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def _range_of(values: NDArray[Any], unwritten: NDArray[np.bool_] | None) -> tuple[float, float]:
    known = values.ravel() if unwritten is None or unwritten.all() else values[~unwritten]
    low, high = np.percentile(known[:: max(1, known.size // _SAMPLES)], _PERCENTILES)
    return float(low), float(high)
