"""Letterboxing: fits a picture into a model's input without distortion, and maps boxes back to the picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.detection.detector import Picture
from app.detection.inference.boxes import Floats

_GREY = 114  # the padding colour that YOLO models are trained with


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The picture's rectangle within an input of `input_height` by `input_width` pixels."""

    input_height: int
    input_width: int
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def for_picture(cls, picture: Picture, input_height: int, input_width: int) -> "Letterbox":
        """Return the largest centred rectangle that keeps the picture's proportions."""
        height, width = picture.shape[:2]
        scale = min(input_width / width, input_height / height)
        fitted_width, fitted_height = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (input_width - fitted_width) // 2, (input_height - fitted_height) // 2
        return cls(input_height, input_width, left, top, fitted_width, fitted_height)

    def fill(self, picture: Picture) -> NDArray[np.float32]:
        """Return the input [1, 3, height, width], 0..1: the picture in its rectangle, grey padding elsewhere."""
        canvas = np.full((self.input_height, self.input_width, 3), _GREY, dtype=np.uint8)
        fitted = Image.fromarray(picture).resize((self.width, self.height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        canvas[self.top : self.top + self.height, self.left : self.left + self.width] = np.asarray(fitted)
        return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255)

    def to_fractions(self, corners: Floats) -> Floats:
        """Convert corners [M, 4] from pixels of the input to fractions of the picture, clipped to its edges."""
        origin = np.array([self.left, self.top] * 2, dtype=np.float32)
        size = np.array([self.width, self.height] * 2, dtype=np.float32)
        fractions: Floats = np.clip((corners - origin) / size, 0, 1)
        return fractions
