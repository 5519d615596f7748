"""Videos to measure with: a camera that wanders over a photo, with grain, as H.264 in MP4."""

from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

PHOTO = Path(__file__).parent.parent / "app" / "demo" / "media" / "astronaut.jpg"
_GRAINS = 16


def write_clip(path: Path, *, width: int, height: int, rate: int, frames: int, quality: int) -> None:
    """A clip of so many frames; `quality` is x264's constant rate factor."""
    grain = np.random.default_rng(1)
    photo = np.asarray(Image.open(PHOTO).convert("RGB").resize((width + width // 4, height + height // 4)))
    photo = np.minimum(photo, 243)
    grains = [grain.integers(0, 13, (height, width, 3), dtype=np.uint8) for _ in range(_GRAINS)]
    with av.open(path, "w") as container:
        options = {"preset": "veryfast", "crf": str(quality)}
        stream = container.add_stream("libx264", rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            left = int((width // 8) * (1 + np.sin(number / 40)))
            top = int((height // 8) * (1 + np.cos(number / 31)))
            picture = photo[top : top + height, left : left + width] + grains[number % _GRAINS]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
