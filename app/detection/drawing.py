"""Pictures with what was found on them: a box and a label for each object."""

import resource
import signal
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection

from PIL import Image, ImageDraw, ImageFont

from app.detection.detector import DetectedObject, Picture
from app.detection.drawing_process import Drawing
from app.detection.images import decode_picture
from app.detection.limits import MediaLimits, ProcessLimits
from app.detection.video import Video
from app.errors import DetectionsError, Undecodable

_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080")
_PADDING = 3


def draw_boxes(image: Image.Image, objects: Sequence[DetectedObject]) -> None:
    """Draw each object's box on the upright picture, its label above it, or inside where there is no room.

    The first lies on top. Lines and letters grow with the picture, but stay small enough for the small objects of large
    ones.
    """
    draw = ImageDraw.Draw(image)
    side = min(image.size)
    thickness, font = min(6, max(2, side // 150)), ImageFont.load_default(min(32, max(12, side // 26)))
    for found in reversed(objects):
        colour = _COLOURS[found.class_num % len(_COLOURS)]
        left, top, right, bottom = _corners(found, image.size)
        draw.rectangle((left, top, right, bottom), outline=colour, width=thickness)
        text = f"{found.label} {found.confidence:.2f}"
        x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=font)
        width, height = x1 - x0 + 2 * _PADDING, y1 - y0 + 2 * _PADDING
        left = max(0.0, min(left, image.width - width))
        top = top - height if top >= height else top
        draw.rectangle((left, top, left + width, top + height), fill=colour)
        draw.text((left + _PADDING - x0, top + _PADDING - y0), text, fill="white", font=font)


def serve(connection: Connection, drawing: Drawing, media_limits: MediaLimits, limits: ProcessLimits) -> None:
    """Write the drawing and send the reason why that failed, empty where it did not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.filterwarnings("ignore", module="PIL")
    reason = ""
    try:
        image = Image.fromarray(_picture(drawing, media_limits))
        draw_boxes(image, drawing.objects)
        image.save(drawing.target)
    except DetectionsError as error:
        reason = str(error)
    except OSError as error:
        reason = error.strerror or str(error)
    except MemoryError:
        reason = "drawing it takes more memory than a process may have"
    connection.send_bytes(reason.encode())


def _picture(drawing: Drawing, limits: MediaLimits) -> Picture:
    with drawing.source.open("rb") as file:
        if drawing.media_type == "Image":
            return decode_picture(file, max_pixels=limits.picture_pixels).picture
        with Video(file, interval=drawing.interval, limits=limits.video) as video:
            for frame in video.frames():
                if frame.index == drawing.index:
                    return frame.picture
    raise Undecodable(f"the video has no frame {drawing.index} any more")


def _corners(found: DetectedObject, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in pixels, within the picture."""
    width, height = size
    half_width, half_height = found.width / 2, found.height / 2
    return (
        max(0.0, found.center_x - half_width) * (width - 1),
        max(0.0, found.center_y - half_height) * (height - 1),
        min(1.0, found.center_x + half_width) * (width - 1),
        min(1.0, found.center_y + half_height) * (height - 1),
    )
