"""Clips with each frame's number drawn into it, and reading the number of a shown frame."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

from tests.page.pictures import ASTRONAUT

WIDTH, HEIGHT, BITS, CELL = 320, 240, 8, 16

SHOWN_NUMBER = """video => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(video, 0, 0);
  const isLight = (bit) => context.getImageData(bit * 16 + 8, canvas.height - 8, 1, 1).data[1] > 128;
  return [...Array(8).keys()].reduce((number, bit) => number | (isLight(bit) << bit), 0);
}"""
"""For an evaluation on a video element: the number of the frame that it shows."""


def numbered(
    folder: Path, name: str, times: Sequence[Fraction], *, codec: str = "libx264", b_frames: bool = True
) -> bytes:
    """Make a clip with a person on every frame; `times` are the frames' times in seconds.

    The frame's number is at the lower edge in binary, white for 1 and black for 0, lowest bit first. Phones' recordings
    with a variable rate have no B-frames: with them Chromium, which seeks the keyframe by decoding order, never shows
    the frames just before one.
    """
    photo = Image.open(io.BytesIO(ASTRONAUT)).convert("RGB").resize((WIDTH, HEIGHT))
    options = {"g": "48"} if b_frames or codec == "libvpx" else {"g": "48", "bf": "0"}
    path = folder / name
    tick = Fraction(1, 1000) if name.endswith("webm") else Fraction(1, 240_000)
    with av.open(path, "w", options={} if name.endswith("webm") else {"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=30, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = tick
        for number, time in enumerate(times):
            picture = np.array(photo)
            for bit in range(BITS):
                picture[HEIGHT - CELL :, bit * CELL : (bit + 1) * CELL] = 255 * (number >> bit & 1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def steady(rate: Fraction, *, frames: int, start: Fraction = Fraction(0)) -> list[Fraction]:
    """Return the times of frames at a constant rate."""
    return [start + number / rate for number in range(frames)]


def unsteady(*, frames: int) -> list[Fraction]:
    """Return the times of frames that last 8 or 200 milliseconds."""
    lasting = [33, 8, 17, 90, 7, 40, 200, 8, 8, 17]
    return [Fraction(sum(lasting[at % len(lasting)] for at in range(number)), 1000) for number in range(frames)]
