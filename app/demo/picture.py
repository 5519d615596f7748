"""The photos with what was found on them, side by side in one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080")
_GAP = 8
_TEXT_PADDING = 3

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
    draw = ImageDraw.Draw(image)
    thickness = max(2, min(image.size) // 150)
    font = ImageFont.load_default(max(12, min(image.size) // 26))
    for found in detections:
        colour = _COLOURS[found["classNum"] % len(_COLOURS)]
        left, top, right, bottom = _corners(found, image.size)
        draw.rectangle((left, top, right, bottom), outline=colour, width=thickness)
        text = f"{found['label']} {found['confidence']:.2f}"
        x0, y0, x1, y1 = draw.textbbox((left, top), text, font=font)
        plate = (x0, y0, x1 + 2 * _TEXT_PADDING, y1 + 2 * _TEXT_PADDING)
        draw.rectangle(plate, fill=colour)
        draw.text((left + _TEXT_PADDING, top + _TEXT_PADDING), text, fill="white", font=font)
    return image


def _corners(found: Detection, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in pixels, within the picture."""
    width, height = size
    half_width, half_height = found["width"] / 2, found["height"] / 2
    return (
        max(0.0, found["centerX"] - half_width) * (width - 1),
        max(0.0, found["centerY"] - half_height) * (height - 1),
        min(1.0, found["centerX"] + half_width) * (width - 1),
        min(1.0, found["centerY"] + half_height) * (height - 1),
    )
