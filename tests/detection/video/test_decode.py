"""Clips in every accepted container, and broken, lying and hostile ones."""

import ctypes
import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy as np
import pytest
from av.video.stream import VideoStream
from PIL import Image

from app.detection.detector import Frame
from app.detection.inference.yolo import YoloDetector
from app.detection.limits import VideoLimits
from app.detection.video.decode import Video
from app.errors import MediaTooLarge, Undecodable
from tests.detection.clips import CONTAINERS, Clip, without_pictures
from tests.long import later


def frames_of(path: Path, interval: float = 0.5, limits: VideoLimits | None = None) -> list[Frame]:
    with path.open("rb") as file, Video(file, interval=interval, limits=limits) as video:
        return list(video.frames())


@pytest.mark.parametrize("made", CONTAINERS, ids=lambda made: made.name)
def test_every_container_gives_its_frames_by_time(made: Clip, tmp_path: Path, photo: Image.Image) -> None:
    with made.write(tmp_path, photo).open("rb") as file, Video(file) as video:
        total = video.total
        frames = list(video.frames())
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5], abs=0.02)
    assert total == 6
    assert video.skipped == 0
    for frame in frames:
        shown = np.asarray(made.view(photo, round(frame.time * made.rate)), dtype=int)
        assert abs(frame.picture - shown).mean() < 12


def test_the_index_of_an_mp4_may_stand_at_either_end(tmp_path: Path, photo: Image.Image) -> None:
    """Checks what the names of the containers above claim."""
    late, early = (made.write(tmp_path, photo).read_bytes() for made in CONTAINERS[:2])
    assert late.index(b"moov") > late.index(b"mdat")
    assert early.index(b"moov") < early.index(b"mdat")


def test_a_person_is_found_in_a_clip(clip: Path, detector: YoloDetector) -> None:
    for frame in frames_of(clip):
        assert [found.label for found in detector.detect(frame.picture, 0.45)] == ["person"]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_a_clip_turned_by_metadata_is_seen_upright(
    rotation: int, mirrored: bool, tmp_path: Path, photo: Image.Image
) -> None:
    width, height = (240, 320) if rotation % 180 else (320, 240)
    made = Clip("turned.mp4", frames=2, width=width, height=height, rotation=rotation, mirrored=mirrored)
    upright = np.asarray(Clip("upright.mp4", frames=2).view(photo, 0), dtype=int)
    (frame,) = frames_of(made.write(tmp_path, photo))
    assert frame.picture.shape == (240, 320, 3)
    assert abs(frame.picture - upright).mean() < 12


def test_the_interval_sets_how_many_frames_there_are(clip: Path) -> None:
    assert len(frames_of(clip, interval=0.1)) == 30
    assert len(frames_of(clip, interval=0.001)) == 30
    assert [frame.time for frame in frames_of(clip, interval=1.25)] == pytest.approx([0, 1.3, 2.5])
    assert len(frames_of(clip, interval=60)) == 1


def test_each_frame_tells_its_number_in_the_video(clip: Path) -> None:
    assert [frame.source_frame for frame in frames_of(clip)] == [0, 5, 10, 15, 20, 25]
    assert [frame.source_frame for frame in frames_of(clip, interval=1.25)] == [0, 13, 25]


@pytest.mark.parametrize(
    ("width", "aspect", "shape"), [(160, 2, (240, 320)), (320, Fraction(1, 2), (480, 320)), (320, 1000, (240, 320))]
)
def test_pixels_that_are_not_square_are_widened(
    width: int, aspect: Fraction | int, shape: tuple[int, int], tmp_path: Path, photo: Image.Image
) -> None:
    made = Clip("anamorphic.mkv", width=width, frames=2, pixel_aspect=Fraction(aspect))
    (frame,) = frames_of(made.write(tmp_path, photo))
    shown = np.asarray(made.view(photo, 0).resize((shape[1], shape[0])), dtype=int)
    assert frame.picture.shape == (*shape, 3)
    assert abs(frame.picture - shown).mean() < 12


def test_a_person_on_anamorphic_footage_is_found_as_on_other(
    tmp_path: Path, photo: Image.Image, detector: YoloDetector
) -> None:
    path = Clip("anamorphic.mp4", width=256, height=512, frames=1, pixel_aspect=Fraction(2)).write(tmp_path, photo)
    with path.open("rb") as file, Video(file, fit=832) as video:
        (frame,) = video.frames()
    (found,) = detector.detect(frame.picture, 0.45)
    assert frame.picture.shape == (512, 512, 3)
    assert found.label == "person"
    assert found.confidence > 0.7  # 0.65 if it is not widened


@pytest.mark.parametrize("start", [1, 100, 187])
def test_a_transport_stream_from_any_byte_on_is_decoded(start: int, tmp_path: Path, photo: Image.Image) -> None:
    content = Clip("cut.ts", frames=100, options={"mpegts_flags": "resend_headers"}).write(tmp_path, photo).read_bytes()
    with Video(io.BytesIO(content[start:])) as video:
        assert len(list(video.frames())) > 10


def test_an_interval_must_be_above_0(clip: Path) -> None:
    with pytest.raises(ValueError, match="above 0"):
        frames_of(clip, interval=0)


def test_large_frames_are_reduced_to_what_is_of_use(tmp_path: Path, photo: Image.Image) -> None:
    path = Clip("large.mp4", width=1280, height=720, frames=1).write(tmp_path, photo)
    with path.open("rb") as file, Video(file, fit=832) as video:
        (frame,) = video.frames()
    assert frame.picture.shape == (468, 832, 3)


def test_a_variable_frame_rate_is_sampled_by_time(tmp_path: Path) -> None:
    path = tmp_path / "variable.mkv"
    with av.open(path, "w") as container:
        stream = grey_stream(container)
        for milliseconds in (0, 40, 80, 900, 910, 2600, 2640):
            container.mux(stream.encode(grey_frame(milliseconds)))
        container.mux(stream.encode(None))
    frames = frames_of(path)
    assert [frame.time for frame in frames] == pytest.approx([0, 0.9, 2.6])
    assert [frame.source_frame for frame in frames] == [0, 3, 5]


def test_recordings_joined_together_are_seen_to_the_end(tmp_path: Path, photo: Image.Image) -> None:
    once = Clip("once.ts").write(tmp_path, photo).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(once + once)
    times = [frame.time for frame in frames_of(joined)]
    assert len(times) == 12
    assert times == sorted(times)
    assert times[-1] == pytest.approx(5.5, abs=0.2)


@pytest.mark.long
def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    path = tmp_path / "long.mkv"
    with av.open(path, "w") as container:
        stream = grey_stream(container, width=1280, height=720)
        for number in range(400):
            container.mux(stream.encode(grey_frame(number * 500, width=1280, height=720)))
        container.mux(stream.encode(None))
    with path.open("rb") as file, Video(file) as video:
        frames = video.frames()
        for _ in range(20):
            next(frames)
        before = resident_bytes()
        seen = sum(1 for _ in frames)
    assert seen == 380  # 1 GB of decoded frames
    assert resident_bytes() - before < 64 * 1024**2


@pytest.mark.parametrize("name", later(["material.mxf", "nut.nut"], "stream.ogg", "frames.ivf"))
def test_other_containers_are_refused_whatever_their_name(name: str, tmp_path: Path, photo: Image.Image) -> None:
    codec = {"mxf": "mpeg2video", "nut": "mpeg4", "ogg": "libvpx", "ivf": "libvpx"}[name[-3:]]
    path = Clip(name, codec=codec, rate=25).write(tmp_path, photo).rename(tmp_path / "renamed.mp4")
    with pytest.raises(Undecodable, match="not a complete MP4"):
        frames_of(path)


def test_a_playlist_named_mp4_opens_no_other_file(tmp_path: Path, clip: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip.read_bytes())
    playlists = {
        "concat.mp4": f"ffconcat version 1.0\nfile {secret}\n",
        "relative.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
        "stream.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{secret}\n#EXT-X-ENDLIST\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        with opened_files(secret) as opened:
            with pytest.raises(Undecodable):
                frames_of(tmp_path / name)
            assert not opened()


def test_the_watch_on_opened_files_sees_one(clip: Path) -> None:
    with opened_files(clip) as opened:
        frames_of(clip)
        assert opened()


def test_a_file_without_a_video_stream_is_undecodable(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(Undecodable, match="no video stream"):
        frames_of(path)


def test_a_codec_that_nobody_knows_is_undecodable(tmp_path: Path, photo: Image.Image) -> None:
    content = Clip("strange.mkv").write(tmp_path, photo).read_bytes()
    with pytest.raises(Undecodable, match=r"no video stream|codec is unknown"):
        Video(io.BytesIO(content.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ")))


@pytest.mark.parametrize("name", ["empty.mkv", "empty.mp4", "empty.avi", "empty.ts"])
def test_a_video_without_a_frame_is_undecodable(name: str, tmp_path: Path) -> None:
    with av.open(tmp_path / name, "w") as container:
        grey_stream(container)
        container.start_encoding()
    with pytest.raises(Undecodable):
        frames_of(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"not a video at all"])
def test_what_is_no_video_is_undecodable(content: bytes) -> None:
    with pytest.raises(Undecodable), Video(io.BytesIO(content)) as video:
        list(video.frames())


def test_a_video_cut_off_before_its_index_is_undecodable(clip: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:-600])
    with pytest.raises(Undecodable):
        frames_of(cut)


def test_a_video_cut_off_behind_its_index_gives_what_is_there(tmp_path: Path, photo: Image.Image) -> None:
    path = Clip("early.mp4", options={"movflags": "faststart"}).write(tmp_path, photo)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    assert 1 <= len(frames_of(path)) < 6


def test_corrupt_packets_are_skipped_and_counted(tmp_path: Path, photo: Image.Image) -> None:
    content = without_pictures(Clip("broken.avi", codec="mjpeg").write(tmp_path, photo).read_bytes(), range(3, 7))
    with Video(io.BytesIO(content), interval=0.1) as video:
        times = [frame.time for frame in video.frames()]
    assert video.skipped == 4
    assert times == pytest.approx([0.1 * number for number in range(30) if number not in {3, 4, 5, 6}])


def test_a_hole_in_a_stream_does_not_end_it(tmp_path: Path, photo: Image.Image) -> None:
    content = Clip("hole.ts", frames=100).write(tmp_path, photo).read_bytes()
    middle = len(content) // 2
    with Video(io.BytesIO(content[:middle] + bytes(3000) + content[middle + 3000 :])) as video:
        times = [frame.time for frame in video.frames()]
    assert times[-1] > 9


def test_frames_of_too_many_pixels_are_refused_before_they_are_decoded(clip: Path) -> None:
    with clip.open("rb") as file, pytest.raises(MediaTooLarge, match="320 by 240"):
        Video(file, limits=VideoLimits(max_pixels=320 * 240 - 1))
    assert frames_of(clip, limits=VideoLimits(max_pixels=320 * 240))


def test_a_video_that_is_too_long_is_refused(clip: Path) -> None:
    with clip.open("rb") as file, pytest.raises(MediaTooLarge, match="longer"):
        Video(file, limits=VideoLimits(max_seconds=2.9))


def test_a_video_that_gives_too_many_frames_is_refused(clip: Path) -> None:
    with clip.open("rb") as file, pytest.raises(MediaTooLarge, match="frames"):
        Video(file, limits=VideoLimits(max_frames=5))


def test_a_duration_that_is_absurd_is_refused_at_once(tmp_path: Path, photo: Image.Image) -> None:
    with pytest.raises(MediaTooLarge):
        Video(io.BytesIO(claiming(1e12, Clip("lie.mkv").write(tmp_path, photo))))


@pytest.mark.parametrize("milliseconds", [0.0, 1.0, -5.0, float("nan")])
def test_a_duration_that_is_too_short_hides_nothing(milliseconds: float, tmp_path: Path, photo: Image.Image) -> None:
    content = claiming(milliseconds, Clip("lie.mkv").write(tmp_path, photo))
    with Video(io.BytesIO(content)) as video:
        assert len(list(video.frames())) == 6
    with Video(io.BytesIO(content), limits=VideoLimits(max_frames=5)) as video, pytest.raises(MediaTooLarge):
        list(video.frames())


def test_a_duration_that_is_too_long_misleads_the_estimate_only(tmp_path: Path, photo: Image.Image) -> None:
    with Video(io.BytesIO(claiming(60_000, Clip("lie.mkv").write(tmp_path, photo)))) as video:
        assert video.total == 120
        assert len(list(video.frames())) == 6


def test_a_corrupt_packet_is_not_the_end_of_a_video_that_builds_on_it(tmp_path: Path, photo: Image.Image) -> None:
    """Each packet but the first depends on the previous ones."""
    path = Clip("chain.mkv", codec="mpeg4", frames=100).write(tmp_path, photo)
    with av.open(path) as container:
        packets = [bytes(packet) for packet in container.demux() if packet.size]
    content = path.read_bytes()
    for packet in packets[40:45]:
        content = content.replace(packet, b"\xff" * len(packet), 1)
    with Video(io.BytesIO(content)) as video:
        times = [frame.time for frame in video.frames()]
    assert video.skipped > 0
    assert times[-1] > 9


def test_a_fault_of_the_disk_is_not_held_against_the_video(clip: Path) -> None:
    class FailingDisk(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        Video(FailingDisk(clip.read_bytes()))


def grey_stream(container: av.container.OutputContainer, width: int = 64, height: int = 48) -> VideoStream:
    stream = container.add_stream("mpeg4", rate=25)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1000)
    return stream


def grey_frame(milliseconds: int, width: int = 64, height: int = 48) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 100, np.uint8), format="rgb24")
    frame.pts, frame.time_base = milliseconds, Fraction(1, 1000)
    return frame


def claiming(milliseconds: float, matroska: Path) -> bytes:
    """Return the file with another duration in its header."""
    content = matroska.read_bytes()
    at = content.index(b"\x44\x89\x88") + 3
    return content[:at] + struct.pack(">d", milliseconds) + content[at + 8 :]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@contextmanager
def opened_files(path: Path) -> Iterator[Callable[[], bool]]:
    """Report whether any library, also in C, opens the file."""
    in_open = 0x20
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    libc.inotify_add_watch(watch, os.fsencode(path), in_open)

    def opened() -> bool:
        try:
            return bool(os.read(watch, 4096))
        except BlockingIOError:
            return False

    try:
        yield opened
    finally:
        os.close(watch)
