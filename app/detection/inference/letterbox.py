"""A picture fitted into a model's input without stretching it, and the way back to fractions of the picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.detection.detector import Picture
from app.detection.inference.boxes import Floats

_GREY = 114  # what YOLO models are trained with around the picture


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where in an input of `input_height` by `input_width` pixels the picture lies."""

    input_height: int
    input_width: int
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def around(cls, picture: Picture, input_height: int, input_width: int) -> "Letterbox":
        """The largest place in the middle that keeps the picture's proportions."""
        height, width = picture.shape[:2]
        scale = min(input_width / width, input_height / height)
        fitted_width, fitted_height = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (input_width - fitted_width) // 2, (input_height - fitted_height) // 2
        return cls(input_height, input_width, left, top, fitted_width, fitted_height)

    def fill(self, picture: Picture) -> NDArray[np.float32]:
        """The input [1, 3, height, width], 0..1, with the picture in its place and grey around it."""
        canvas = np.full((self.input_height, self.input_width, 3), _GREY, dtype=np.uint8)
        fitted = Image.fromarray(picture).resize((self.width, self.height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        canvas[self.top : self.top + self.height, self.left : self.left + self.width] = np.asarray(fitted)
        return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255)

    def fractions(self, corners: Floats) -> Floats:
        """Corners [M, 4] in pixels of the input, as fractions of the picture, cut off at its edges."""
        origin = np.array([self.left, self.top] * 2, dtype=np.float32)
        size = np.array([self.width, self.height] * 2, dtype=np.float32)
        fractions: Floats = np.clip((corners - origin) / size, 0, 1)
        return fractions
