"""Damaged files of every format end in a result or in an error about the file."""

import io
import random
from pathlib import Path

import pytest
from PIL import Image

from app.detection.limits import VideoLimits
from app.detection.pictures.decode import decode_picture
from app.detection.video.decode import Video
from app.errors import MediaTooLarge, Undecodable
from tests.detection.clips import Clip

pytestmark = pytest.mark.filterwarnings("ignore")

PICTURES = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
CLIPS = (
    Clip("damaged.mp4", frames=8),
    Clip("damaged.mkv", frames=8),
    Clip("damaged.ts", frames=8),
    Clip("damaged.avi", codec="mpeg4", frames=8),
    Clip("damaged.webm", codec="libvpx", frames=8),
)
SEEDS = range(12)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return the content truncated, or with bytes changed, zeroed, removed or repeated, mostly near the start."""
    span = chance.choice([64, 1024, len(content)])
    at = chance.randrange(min(span, len(content)))
    length = chance.choice([1, 4, 100, 5000])
    match chance.randrange(5):
        case 0:
            return content[:at]
        case 1:
            flipped = bytearray(content)
            for _ in range(length):
                flipped[chance.randrange(min(span, len(content)))] = chance.randrange(256)
            return bytes(flipped)
        case 2:
            return content[:at] + bytes(min(length, len(content) - at)) + content[at + length :]
        case 3:
            return content[:at] + content[at + length :]
    return content[:at] + content[at : at + length] * 3 + content[at + length :]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", PICTURES)
def test_a_damaged_picture_is_decoded_or_refused(kind: str, seed: int, photo: Image.Image) -> None:
    file = io.BytesIO()
    photo.resize((160, 120)).save(file, kind)
    content = damaged(file.getvalue(), random.Random(f"{kind} {seed}"))
    try:
        frame = decode_picture(io.BytesIO(content), max_pixels=4_000_000, fit=832)
    except (Undecodable, MediaTooLarge):
        return
    assert frame.picture.ndim == 3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("made", CLIPS, ids=lambda made: made.name)
def test_a_damaged_video_is_decoded_or_refused(made: Clip, seed: int, tmp_path: Path, photo: Image.Image) -> None:
    content = damaged(made.write(tmp_path, photo).read_bytes(), random.Random(f"{made.name} {seed}"))
    limits = VideoLimits(max_pixels=4_000_000, max_frames=1000)
    try:
        with Video(io.BytesIO(content), interval=0.1, limits=limits, fit=832) as video:
            frames = list(video.frames())
    except (Undecodable, MediaTooLarge):
        return
    assert frames
    assert [frame.index for frame in frames] == list(range(len(frames)))
