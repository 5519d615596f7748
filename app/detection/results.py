"""Results of a detection as plain numbers. The web process imports this module, so it needs no numpy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """One detected object. Centre, width and height are fractions 0..1 of the upright picture; confidence is 0..1."""

    class_num: int
    label: str
    confidence: float
    center_x: float
    center_y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class FrameResult:
    """The objects detected on one frame.

    `index` counts the sampled frames from 0; `time` is in seconds. `source_frame` counts all frames of a video in order
    of presentation and is 0 for a picture; it is None in results stored before the column existed.
    """

    index: int
    time: float
    objects: tuple[DetectedObject, ...]
    source_frame: int | None = 0
