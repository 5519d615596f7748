"""Video clips for the tests: a slow pan over a photo in every accepted container."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

_written: dict[tuple[str, int], bytes] = {}
"""What was encoded once is not encoded again."""


@dataclass(frozen=True)
class Clip:
    """How a clip is encoded.

    `rotation`, in degrees counter-clockwise, and the mirroring after it are metadata. `pixel_aspect` is the ratio of a
    pixel's width to its height.
    """

    name: str
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=dict)
    width: int = 320
    height: int = 240
    frames: int = 30
    rate: int = 10
    rotation: int = 0
    mirrored: bool = False
    pixel_aspect: Fraction = Fraction(1)

    def write(self, folder: Path, photo: Image.Image) -> Path:
        """Write the clip into the folder. A player shows the photo upright and not mirrored."""
        path = folder / self.name
        key = (repr(self), hash((photo.size, photo.tobytes())))
        if key not in _written:
            self._write(path, photo)
            _written[key] = path.read_bytes()
        path.write_bytes(_written[key])
        return path

    def _write(self, path: Path, photo: Image.Image) -> None:
        with av.open(path, "w", options=self.options) as container:
            stream = container.add_stream(self.codec, rate=self.rate)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
            if self.codec == "mjpeg":
                stream.pix_fmt = "yuvj420p"
            if self.pixel_aspect != 1:
                stream.codec_context.sample_aspect_ratio = self.pixel_aspect
            if self.rotation or self.mirrored:
                stream.set_display_rotation(self.rotation, hflip=self.mirrored)
            self._encode(container, stream, photo)

    def _encode(self, container: av.container.OutputContainer, stream: VideoStream, photo: Image.Image) -> None:
        for number in range(self.frames):
            stored = np.ascontiguousarray(self.view(photo, number).rotate(-self.rotation, expand=True))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode(None))

    def view(self, photo: Image.Image, number: int) -> Image.Image:
        """Return what the frame shows: upright, and mirrored if the clip is."""
        width, height = (self.height, self.width) if self.rotation % 180 else (self.width, self.height)
        wide = photo.resize((width + width // 8, height))
        left = (wide.width - width) * number // self.frames
        view = wide.crop((left, 0, left + width, height))
        return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else view


CONTAINERS = (
    Clip("index-at-end.mp4"),
    Clip("faststart.mp4", options={"movflags": "faststart"}),
    Clip("quicktime.mov"),
    Clip("matroska.mkv"),
    Clip("web.webm", codec="libvpx"),
    Clip("motion-jpeg.avi", codec="mjpeg"),
    Clip("mpeg4.avi", codec="mpeg4"),
    Clip("transport.ts"),
    Clip("camera.mts"),
    Clip("program.mpg", codec="mpeg2video", frames=90, rate=30),
    Clip("windows.wmv", codec="wmv2"),
    Clip("flash.flv", codec="flv"),
    Clip("phone.3gp"),
)


def without_pictures(avi: bytes, numbers: Iterable[int]) -> bytes:
    """Return a motion JPEG file in which the packets of those numbers contain only zeros."""
    packets = [at + 8 for at in range(len(avi) - 8) if avi[at : at + 4] == b"00dc" and avi[at + 8] == 0xFF]
    for start in (packets[number] for number in numbers):
        size = int.from_bytes(avi[start - 4 : start], "little")
        avi = avi[:start] + bytes(size) + avi[start + size :]
    return avi
