"""Photos and clips for the page's tests; each call can make one that the service does not know."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.detection.clips import Clip
from tests.paths import PHOTOS

ASTRONAUT = (PHOTOS / "astronaut.jpg").read_bytes()
CHELSEA = (PHOTOS / "chelsea.jpg").read_bytes()
TURNED_CLOCKWISE = 6
ORIENTATION = 0x0112


def unseen(photo: bytes, mark: str, size: int = 0) -> bytes:
    """Return the same picture with other bytes after its end, which decoders ignore. `size` is the minimum size."""
    content = photo + mark.encode()
    return content + bytes(max(0, size - len(content)))


def card(number: int) -> bytes:
    """Return a small picture without objects, different for each number."""
    content = io.BytesIO()
    Image.new("RGB", (64, 48), (number % 256, 90, number // 256)).save(content, "PNG")
    return content.getvalue()


def turned(photo: bytes) -> bytes:
    """Return the picture rotated, with the orientation in its metadata."""
    content = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_CLOCKWISE
    Image.open(io.BytesIO(photo)).rotate(90, expand=True).save(content, "JPEG", exif=exif, quality=95)
    return content.getvalue()


def tiff(photo: bytes) -> bytes:
    content = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(content, "TIFF")
    return content.getvalue()


@dataclass(frozen=True)
class Glimpse(Clip):
    """A clip that shows the photo between two frames, and grey before and after."""

    first: int = 20
    last: int = 39

    def view(self, photo: Image.Image, number: int) -> Image.Image:
        if self.first <= number <= self.last:
            return photo.resize((self.width, self.height))
        return Image.new("RGB", (self.width, self.height), (120, 120, 120))


def glimpse(folder: Path, *, name: str = "glimpse.mp4", frames: int = 60, first: int = 20, last: int = 39) -> bytes:
    """Make a clip of ten frames per second that shows the photo from second 2 to second 4."""
    clip = Glimpse(name, options={"movflags": "faststart"}, frames=frames, first=first, last=last)
    return clip.write(folder, Image.open(io.BytesIO(ASTRONAUT)).convert("RGB")).read_bytes()
