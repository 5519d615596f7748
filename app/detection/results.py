"""What a detection found, in plain numbers: nothing here needs numpy, so the web process can hold results too."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """One box. Centre, width and height are fractions 0..1 of the upright picture; confidence is 0..1."""

    class_num: int
    label: str
    confidence: float
    center_x: float
    center_y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What was found on one frame.

    `index` counts the frames looked at. `source_frame` counts all frames of a video in the order of time and is 0 for a
    picture; None where nobody counted, in results of before the schema's third version.
    """

    index: int
    time: float
    objects: tuple[DetectedObject, ...]
    source_frame: int | None = 0
