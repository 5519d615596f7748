"""The seam between runs and models: what a frame is, what a detection is, and what a detector must do."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.detection.results import DetectedObject, FrameResult

__all__ = ["DetectedObject", "Detector", "Frame", "FrameResult", "Picture"]

Picture = NDArray[np.uint8]
"""An upright RGB picture, shape (height, width, 3)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a media. `index` counts the sampled frames from 0; `time` is seconds from the start.

    `source_frame` counts all frames of a video in the order of time; it is 0 for a picture. `warnings` say what of a
    picture is missing.
    """

    index: int
    time: float
    picture: Picture
    source_frame: int = 0
    warnings: tuple[str, ...] = ()


class Detector(Protocol):
    """A model, loaded and ready. `name` changes whenever results may, so that they can be told apart."""

    name: str
    labels: dict[int, str]

    def detect(self, picture: Picture, confidence: float) -> list[DetectedObject]:
        """Boxes of at least `confidence`, most confident first."""
        ...
