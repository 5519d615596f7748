"""The interface between runs and models: a frame, a detected object and the Detector protocol."""

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
    """One decoded frame.

    `index` counts the sampled frames from 0. `time` is in seconds from the start. `source_frame` counts all frames of a
    video in order of presentation and is 0 for a picture. `warnings` describe what is missing from a damaged picture.
    """

    index: int
    time: float
    picture: Picture
    source_frame: int = 0
    warnings: tuple[str, ...] = ()


class Detector(Protocol):
    """A loaded model. `name` differs whenever the same media could give different detections."""

    name: str
    labels: dict[int, str]

    def detect(self, picture: Picture, confidence: float) -> list[DetectedObject]:
        """Return detections of at least `confidence` (0..1), most confident first."""
        ...
