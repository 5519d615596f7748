"""Draws detections onto a picture or a video's frame."""

import io
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import BinaryIO

from PIL import Image, ImageDraw, ImageFont

from app.detection.detector import DetectedObject, Picture
from app.detection.limits import MediaLimits
from app.detection.pictures.decode import decode_picture
from app.detection.protocol.requests import Drawing
from app.detection.video.decode import Video
from app.errors import Undecodable

FORMATS: Mapping[str, str] = MappingProxyType({".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"})
"""Pillow's format names by file extension."""

_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080")
_PADDING = 3


def draw_boxes(image: Image.Image, objects: Sequence[DetectedObject]) -> None:
    """Draw each object's box on the upright picture, with its label above the box or, without room there, inside.

    The first object is drawn on top. Line width and font size grow with the picture up to a limit, so that small
    objects in large pictures stay visible.
    """
    draw = ImageDraw.Draw(image)
    side = min(image.size)
    thickness, font = min(6, max(2, side // 150)), ImageFont.load_default(min(32, max(12, side // 26)))
    for detection in reversed(objects):
        colour = _COLOURS[detection.class_num % len(_COLOURS)]
        left, top, right, bottom = _corners(detection, image.size)
        draw.rectangle((left, top, right, bottom), outline=colour, width=thickness)
        text = f"{detection.label} {detection.confidence:.2f}"
        x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=font)
        width, height = x1 - x0 + 2 * _PADDING, y1 - y0 + 2 * _PADDING
        left = max(0.0, min(left, image.width - width))
        top = top - height if top >= height else top
        draw.rectangle((left, top, left + width, top + height), fill=colour)
        draw.text((left + _PADDING - x0, top + _PADDING - y0), text, fill="white", font=font)


def draw(drawing: Drawing, file: BinaryIO, limits: MediaLimits, on_packet: Callable[[], None]) -> bytes:
    """Return the requested drawing as the content of an image file.

    `on_packet` is called for each packet of a video. Raises Undecodable or MediaTooLarge.
    """
    image = Image.fromarray(_picture(drawing, file, limits, on_packet))
    draw_boxes(image, drawing.objects)
    content = io.BytesIO()
    image.save(content, format=FORMATS[drawing.extension])
    return content.getvalue()


def _picture(drawing: Drawing, file: BinaryIO, limits: MediaLimits, on_packet: Callable[[], None]) -> Picture:
    if drawing.media_type == "Image":
        return decode_picture(file, max_pixels=limits.picture_pixels).picture
    with Video(file, interval=drawing.interval, limits=limits.video, on_packet=on_packet) as video:
        for frame in video.frames():
            if frame.index == drawing.index:
                return frame.picture
    raise Undecodable(f"the video has no frame {drawing.index} any more")


def _corners(detection: DetectedObject, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom in pixels, clipped to the picture."""
    width, height = size
    half_width, half_height = detection.width / 2, detection.height / 2
    return (
        max(0.0, detection.center_x - half_width) * (width - 1),
        max(0.0, detection.center_y - half_height) * (height - 1),
        min(1.0, detection.center_x + half_width) * (width - 1),
        min(1.0, detection.center_y + half_height) * (height - 1),
    )
