"""One file of each kind that cameras, phones and programs make: a person is detected, or it is decoded as expected.

Pillow and hand-written code make the pictures. Debian's ffmpeg makes the videos, because it has another encoder and
another muxer than the tested decoder.
"""

import io
import shutil
import struct
import subprocess
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.detection.detector import DetectedObject, Picture
from app.detection.inference.yolo import YoloDetector
from app.detection.pictures.decode import decode_picture
from app.detection.video.decode import Video
from tests.paths import PHOTOS

pytestmark = pytest.mark.slow

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(
    FFMPEG is None, reason="there is no ffmpeg to make videos with: apt-get install ffmpeg"
)
SIDE = 256


@cache
def photo() -> Image.Image:
    return Image.open(PHOTOS / "astronaut.jpg").convert("RGB").resize((SIDE, SIDE))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def assert_person(found: list[DetectedObject]) -> None:
    person = max(found, key=lambda one: one.confidence)
    assert person.label == "person"
    assert (person.center_x, person.center_y) == pytest.approx((0.37, 0.51), abs=0.08)
    assert (person.width, person.height) == pytest.approx((0.68, 0.96), abs=0.16)


def assert_shows_the_photo(picture: Picture) -> None:
    """In grey, because colours are where encoders save: on average a pixel is off by less than 10 of 255."""
    shown = np.asarray(Image.fromarray(picture).convert("L"), dtype=float)
    wanted = np.asarray(photo().convert("L").resize(picture.shape[1::-1]), dtype=float)
    assert np.abs(shown - wanted).mean() < 10


def bitmap(masks: tuple[int, int, int], *, top_down: bool) -> bytes:
    """Return a BMP of 16 bits per pixel with those masks for red, green and blue."""
    red, green, blue = (np.asarray(photo())[..., channel].astype(np.uint16) for channel in range(3))
    values = np.zeros((SIDE, SIDE), dtype="<u2")
    for channel, mask in zip((red, green, blue), masks, strict=True):
        shift, bits = (mask & -mask).bit_length() - 1, mask.bit_count()
        values |= (channel >> (8 - bits)) << shift
    rows = values if top_down else values[::-1]
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, -SIDE if top_down else SIDE, 1, 16, 3, SIDE * SIDE * 2, 0, 0, 0, 0)
    head = info + struct.pack("<III", *masks)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + rows.nbytes, 0, 0, 14 + len(head)) + head + rows.tobytes()


def tiled_tiff(*, planar: bool) -> bytes:
    """Return an uncompressed TIFF in tiles of 128 pixels, or with a plane for each colour."""
    pixels = np.asarray(photo())
    if planar:
        parts = [pixels[..., channel].tobytes() for channel in range(3)]
        layout = {278: (4, [SIDE])}
    else:
        corners = [(y, x) for y in range(0, SIDE, 128) for x in range(0, SIDE, 128)]
        parts = [pixels[y : y + 128, x : x + 128].tobytes() for y, x in corners]
        layout = {322: (4, [128]), 323: (4, [128])}
    offsets = [8 + sum(map(len, parts[:number])) for number in range(len(parts))]
    entries: dict[int, tuple[int, list[int]]] = {
        256: (4, [SIDE]),
        257: (4, [SIDE]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [2]),
        277: (3, [3]),
        284: (3, [2 if planar else 1]),
        273 if planar else 324: (4, offsets),
        279 if planar else 325: (4, [len(part) for part in parts]),
        **layout,
    }
    directory, extra = b"", b""
    start = 8 + sum(map(len, parts))
    behind = start + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        field = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", behind + len(extra))
        extra += b"" if len(packed) <= 4 else packed
        directory += struct.pack("<HHI", tag, kind, len(values)) + field
    ifd = struct.pack("<H", len(entries)) + directory + bytes(4)
    return b"II*\0" + struct.pack("<I", start) + b"".join(parts) + ifd + extra


def others() -> list[Image.Image]:
    return [Image.new("RGB", (SIDE, SIDE), "blue"), Image.new("RGB", (SIDE, SIDE), "lime")]


def with_alpha() -> Image.Image:
    image = photo().copy()
    image.putalpha(240)
    return image


def degrees() -> Image.Image:
    return Image.fromarray(20 + np.asarray(photo().convert("L"), dtype=np.float32) / 16)


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.asarray(photo().convert("L"), dtype=np.uint16) * 257)


def several(kind: str, **options: Any) -> bytes:
    return saved(photo(), kind, save_all=True, append_images=others(), **options)


PICTURES: dict[str, Callable[[], bytes]] = {
    "baseline.jpg": lambda: saved(photo(), "JPEG"),
    "progressive.jpg": lambda: saved(photo(), "JPEG", progressive=True),
    "grey.jpg": lambda: saved(photo().convert("L"), "JPEG"),
    "cmyk.jpg": lambda: saved(photo().convert("CMYK"), "JPEG"),
    "several.mpo": lambda: several("MPO"),
    "motion-photo.jpg": lambda: saved(photo(), "JPEG") + b"\0\0\0\x18ftypmp42" + bytes(4000),
    "trailing.jpg": lambda: saved(photo(), "JPEG") + b"and more",
    "plain.png": lambda: saved(photo(), "PNG"),
    "palette.png": lambda: saved(photo().convert("P"), "PNG"),
    "alpha.png": lambda: saved(with_alpha(), "PNG"),
    "sixteen-bits.png": lambda: saved(sixteen_bits(), "PNG"),
    "animated.png": lambda: several("PNG"),
    "trailing.png": lambda: saved(photo(), "PNG") + b"and more",
    "lossy.webp": lambda: saved(photo(), "WEBP"),
    "lossless.webp": lambda: saved(photo(), "WEBP", lossless=True),
    "alpha.webp": lambda: saved(with_alpha(), "WEBP"),
    "animated.webp": lambda: several("WEBP"),
    "animated.gif": lambda: several("GIF"),
    "photo.avif": lambda: saved(photo(), "AVIF", speed=10),
    "plain.tiff": lambda: saved(photo(), "TIFF"),
    "big.tiff": lambda: saved(photo(), "TIFF", big_tiff=True),
    "tiled.tiff": lambda: tiled_tiff(planar=False),
    "planar.tiff": lambda: tiled_tiff(planar=True),
    "lzw.tiff": lambda: saved(photo(), "TIFF", compression="tiff_lzw"),
    "zstd.tiff": lambda: saved(photo(), "TIFF", compression="zstd"),
    "jpeg.tiff": lambda: saved(photo(), "TIFF", compression="jpeg", quality=90),
    "cmyk.tiff": lambda: saved(photo().convert("CMYK"), "TIFF"),
    "pages.tiff": lambda: several("TIFF"),
    "sixteen-bits.tiff": lambda: saved(sixteen_bits(), "TIFF"),
    "degrees.tiff": lambda: saved(degrees(), "TIFF"),
    "plain.bmp": lambda: saved(photo(), "BMP"),
    "565.bmp": lambda: bitmap((0xF800, 0x07E0, 0x001F), top_down=False),
    "555.bmp": lambda: bitmap((0x7C00, 0x03E0, 0x001F), top_down=False),
    "top-down.bmp": lambda: bitmap((0xF800, 0x07E0, 0x001F), top_down=True),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_shows_the_photo(name: str) -> None:
    frame = decode_picture(io.BytesIO(PICTURES[name]()))
    assert frame.picture.shape == (SIDE, SIDE, 3)
    assert frame.warnings == ()
    assert_shows_the_photo(frame.picture)


# A detection takes five times as long as all the rest of such a test: one for each way in which colours are stored.
@pytest.mark.parametrize(
    "name", ["baseline.jpg", "grey.jpg", "cmyk.jpg", "palette.png", "alpha.png", "sixteen-bits.png", "555.bmp"]
)
def test_somebody_is_found_however_colours_are_stored(name: str, detector: YoloDetector) -> None:
    assert_person(detector.detect(decode_picture(io.BytesIO(PICTURES[name]())).picture, 0.3))


def test_a_picture_of_one_bit_is_black_and_white() -> None:
    bits = photo().convert("1")
    for kind in ("PNG", "TIFF", "BMP", "GIF"):
        frame = decode_picture(io.BytesIO(saved(bits, kind)))
        assert np.array_equal(frame.picture[..., 0] > 127, np.asarray(bits))


def ffmpeg(folder: Path, target: str, *options: str, frames: int = 10, rate: str = "10") -> bytes:
    """Make a clip that shows the photo, with those options."""
    source = folder / "photo.png"
    if not source.exists():
        photo().save(source)
    looped = ("-loop", "1", "-framerate", rate, "-i", "photo.png", "-frames:v", str(frames))
    return run(folder, target, *looped, *options)


def run(folder: Path, target: str, *options: str) -> bytes:
    command = [FFMPEG or "ffmpeg", "-nostdin", "-loglevel", "error", "-y", *options, target]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return (folder / target).read_bytes()


H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
HEVC10 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p10le")
BT2020 = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
VIDEOS: dict[str, tuple[str, ...]] = {
    "h264.mp4": H264,
    "hevc-10-bit.mp4": HEVC10,
    "bt2020-pq.mp4": (*HEVC10, *BT2020),
    "full-range.mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuvj420p"),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-b:v", "2M"),
    "vp9-alpha.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt", "yuva420p"),
    "av1.mkv": ("-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "lp=1", "-pix_fmt", "yuv420p"),
    "prores.mov": ("-c:v", "prores_ks"),
    "dnxhr.mov": ("-c:v", "dnxhd", "-profile:v", "dnxhr_sq", "-pix_fmt", "yuv422p"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "3"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-r", "25", "-q:v", "3"),
    "mpeg1.mpeg": ("-f", "mpeg1video", "-c:v", "mpeg1video", "-r", "25", "-q:v", "3"),
    "asp-b-frames.avi": ("-c:v", "mpeg4", "-bf", "2", "-q:v", "3"),
    "qtrle.mov": ("-c:v", "qtrle"),
    "ffv1.mkv": ("-c:v", "ffv1"),
    "theora.mkv": ("-c:v", "libtheora", "-q:v", "8"),
    "wmv2.wmv": ("-c:v", "wmv2", "-q:v", "3"),
    "sorenson.flv": ("-c:v", "flv", "-q:v", "3"),
    "avc.flv": H264,
    "h264.3gp": H264,
    "h264.lrf": (*H264, "-f", "mp4"),
    "interlaced.ts": ("-c:v", "mpeg2video", "-r", "25", "-flags", "+ilme+ildct", "-q:v", "3"),
    "camera.m2ts": (*H264, "-mpegts_m2ts_mode", "1"),
    "fragmented.mp4": (*H264, "-movflags", "frag_keyframe+empty_moov", "-g", "3"),
    "wrapped-clock.ts": (*H264, "-output_ts_offset", "95443.2"),
    "ten-hours.mkv": (*H264, "-output_ts_offset", "36000"),
    "live.mkv": (*H264, "-live", "1"),
    "variable.mp4": (*H264, "-vf", "settb=1/1000,setpts=N*N*9", "-vsync", "passthrough", "-enc_time_base", "1/1000"),
    "two-streams.mkv": (*H264, "-map", "0", "-map", "0"),
}


def looked_at(content: bytes, interval: float = 0.5) -> tuple[list[Picture], list[float], list[int]]:
    with Video(io.BytesIO(content), interval=interval) as video:
        frames = list(video.frames())
    return (
        [frame.picture for frame in frames],
        [frame.time for frame in frames],
        [frame.source_frame for frame in frames],
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of VIDEOS, made by one process: to start ffmpeg takes longer than to make one of them."""
    folder = tmp_path_factory.mktemp("videos")
    photo().save(folder / "photo.png")
    targets = [(*options, "-frames:v", "10", name) for name, options in VIDEOS.items()]
    *others, (*options, last) = targets
    run(folder, last, "-loop", "1", "-framerate", "10", "-i", "photo.png", *chain.from_iterable(others), *options)
    return folder


@needs_ffmpeg
@pytest.mark.parametrize("name", VIDEOS)
def test_every_kind_of_video_shows_the_photo_by_time(name: str, videos: Path) -> None:
    pictures, times, numbers = looked_at((videos / name).read_bytes())
    assert times[0] <= 0.1  # an AVI with B-frames begins one frame later
    assert 1 <= len(times) <= 3
    assert times[1:] == sorted(times[1:])
    assert numbers == sorted(set(numbers))
    for picture in pictures:
        assert picture.shape == (SIDE, SIDE, 3)
        assert_shows_the_photo(picture)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["h264.mp4", "bt2020-pq.mp4", "full-range.mp4"])
def test_somebody_is_found_in_videos_of_each_range_of_colours(name: str, videos: Path, detector: YoloDetector) -> None:
    pictures, _, _ = looked_at((videos / name).read_bytes())
    assert_person(detector.detect(pictures[0], 0.3))


@needs_ffmpeg
@pytest.mark.parametrize(
    ("rate", "frames", "numbers", "times"),
    [
        ("240", 241, [0, 120, 240], [0, 0.5, 1.0]),
        ("0.1", 3, [0, 1, 2], [0, 10, 20]),
        ("25", 1, [0], [0]),
        ("24000/1001", 30, [0, 12, 24], [0, 0.5005, 1.001]),
    ],
)
def test_every_rate_is_sampled_by_time(
    rate: str, frames: int, numbers: list[int], times: list[float], tmp_path: Path
) -> None:
    _, seen_times, seen_numbers = looked_at(ffmpeg(tmp_path, "rate.mp4", *H264, rate=rate, frames=frames))
    assert seen_numbers == numbers
    assert seen_times == pytest.approx(times, abs=0.001)


@needs_ffmpeg
def test_an_edit_list_leaves_out_what_players_leave_out(tmp_path: Path) -> None:
    ffmpeg(tmp_path, "whole.mp4", *H264, "-g", "20", frames=20)
    content = run(tmp_path, "trimmed.mp4", "-ss", "0.35", "-i", "whole.mp4", "-c", "copy")
    pictures, times, _ = looked_at(content)
    assert times == pytest.approx([0, 0.5, 1, 1.5], abs=0.11)
    assert_shows_the_photo(pictures[0])


@needs_ffmpeg
def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    ffmpeg(tmp_path, "plain.mp4", *H264)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "cover.png")
    both = ("-i", "cover.png", "-i", "plain.mp4", "-map", "0", "-map", "1", "-c", "copy")
    content = run(tmp_path, "covered.mp4", *both, "-disposition:v:0", "attached_pic")
    pictures, _, _ = looked_at(content)
    assert_shows_the_photo(pictures[0])


@needs_ffmpeg
def test_a_size_that_changes_in_mid_stream_changes_nothing_else(tmp_path: Path) -> None:
    large = ffmpeg(tmp_path, "large.ts", *H264)
    small = ffmpeg(tmp_path, "small.ts", *H264, "-vf", "scale=192:192", "-output_ts_offset", "1")
    pictures, _, numbers = looked_at(large + small)
    assert {picture.shape[0] for picture in pictures} == {SIDE, 192}
    assert numbers == [0, 5, 10, 15]
    for picture in pictures:
        assert_shows_the_photo(picture)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["index-in-front.mp4", "clip.mkv", "clip.ts", "clip.avi", "clip.mpg", "clip.flv"])
def test_a_video_that_is_cut_or_has_a_hole_gives_what_is_there(name: str, tmp_path: Path) -> None:
    options = {"mp4": (*H264, "-movflags", "faststart"), "avi": VIDEOS["mjpeg.avi"], "mpg": VIDEOS["mpeg2.mpg"]}
    content = ffmpeg(tmp_path, name, *options.get(name[-3:], H264), "-g", "5", frames=40)
    middle = len(content) // 2
    for damaged in (content[: len(content) * 3 // 4], content[:middle] + bytes(300) + content[middle + 300 :]):
        pictures, _, _ = looked_at(damaged)
        assert len(pictures) >= 2
        assert_shows_the_photo(pictures[0])


@needs_ffmpeg
@pytest.mark.parametrize("name", ["clip.ts", "clip.m2ts"])
def test_a_recording_from_any_byte_on_is_decoded(name: str, tmp_path: Path) -> None:
    content = ffmpeg(tmp_path, name, *H264, "-g", "5", "-mpegts_flags", "resend_headers", frames=30)
    for start in (1, 100, 1500):
        pictures, _, _ = looked_at(content[start:])
        assert_shows_the_photo(pictures[-1])
