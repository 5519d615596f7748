"""The photos with what was found on them, side by side in one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from app.detection.drawing import draw_boxes
from app.detection.results import DetectedObject

_GAP = 8

Detection = Mapping[str, Any]


def can_be_written(path: Path) -> bool:
    """Whether the ending of `path` is that of a kind of picture that can be written."""
    return Image.registered_extensions().get(path.suffix.lower()) in Image.SAVE


def write_picture(path: Path, photos: Sequence[tuple[Path, Sequence[Detection]]]) -> None:
    """Draw each photo's detections (as the API answers them) on it, and write all to `path`, making its folder.

    Raises OSError where that fails.
    """
    drawn = [_with_boxes(photo, detections) for photo, detections in photos]
    width = sum(image.width for image in drawn) + _GAP * (len(drawn) - 1)
    picture = Image.new("RGB", (width, max(image.height for image in drawn)), "white")
    left = 0
    for image in drawn:
        picture.paste(image, (left, 0))
        left += image.width + _GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _with_boxes(photo: Path, detections: Sequence[Detection]) -> Image.Image:
    with Image.open(photo) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")  # boxes are those of the upright picture
    draw_boxes(image, [_object(found) for found in detections])
    return image


def _object(found: Detection) -> DetectedObject:
    return DetectedObject(
        class_num=found["classNum"],
        label=found["label"],
        confidence=found["confidence"],
        center_x=found["centerX"],
        center_y=found["centerY"],
        width=found["width"],
        height=found["height"],
    )
