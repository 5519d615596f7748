"""Single-channel pictures of more than eight bits, brought into the eight bits that a model sees.

Thermal cameras write 16-bit greys in a narrow band somewhere in the range: their upper eight bits are almost black.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LEAST_SHARE = 4
"""A picture that uses less than one part in so many of its 16 bits is stretched."""
_PERCENTILES = (0.5, 99.5)
_SAMPLES = 1 << 20
"""Values from which the percentiles are taken, spread evenly over the picture."""


def is_deep_grey(mode: str) -> bool:
    """Whether a picture of that mode of Pillow's has one channel of more than eight bits."""
    return mode in {"I", "F"} or mode.startswith("I;16")


def in_eight_bits(image: Image.Image, unwritten: NDArray[np.bool_] | None = None) -> Image.Image:
    """A deep grey picture in mode L.

    16 bits keep their upper eight, unless less than a quarter of the range lies between the 0.5 and 99.5 percentiles:
    then these become black and white. Integers of 32 bits and floats have no range of their own and are always
    stretched so; what is not a number counts as 0. `unwritten` pixels say nothing about the range.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        low, high = _range_of(values, unwritten)
        if high == low or (high - low) * _LEAST_SHARE >= 1 << 16:
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
