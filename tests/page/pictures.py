"""Photos and clips for the page's tests; each call can make one that the service has not seen."""

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
    """The same picture in other bytes: a decoder reads nothing behind the picture's end. `size` is the least."""
    content = photo + mark.encode()
    return content + bytes(max(0, size - len(content)))


def card(number: int) -> bytes:
    """A small picture with nothing on it, unlike that of any other number."""
    content = io.BytesIO()
    Image.new("RGB", (64, 48), (number % 256, 90, number // 256)).save(content, "PNG")
    return content.getvalue()


def turned(photo: bytes) -> bytes:
    """The picture lying on its side, with the note in its metadata that says how to stand it up."""
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
    """A clip on which the photo is to be seen between two frames only, and grey before and after."""

    first: int = 20
    last: int = 39

    def view(self, photo: Image.Image, number: int) -> Image.Image:
        if self.first <= number <= self.last:
            return photo.resize((self.width, self.height))
        return Image.new("RGB", (self.width, self.height), (120, 120, 120))


def glimpse(folder: Path, *, name: str = "glimpse.mp4", frames: int = 60, first: int = 20, last: int = 39) -> bytes:
    """A clip of ten frames a second with the photo between two of them: from its second to its fourth second."""
    clip = Glimpse(name, options={"movflags": "faststart"}, frames=frames, first=first, last=last)
    return clip.write(folder, Image.open(io.BytesIO(ASTRONAUT)).convert("RGB")).read_bytes()
