"""The frames of a video, sampled by time, as a stream from an open file that nobody vouches for.

Packets are read and decoded one by one, only sampled frames are converted, and a frame is forgotten once the next one
is asked for: memory does not grow with the video.
"""

import math
from collections.abc import Callable, Iterator
from typing import BinaryIO, Self

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from app.detection.detector import Frame, Picture
from app.detection.limits import VideoLimits
from app.detection.video.container import open_container, pixel_aspect, video_stream
from app.detection.video.frame_geometry import Matrix, display_matrix, reduced, upright, widened
from app.detection.video.media_clock import MediaClock
from app.detection.video.position import VideoPosition
from app.errors import MediaTooLarge, Undecodable

_SOUGHT_BEFORE_SECONDS = 1
"""How far before a frame it is sought: containers are searched by the order of decoding, which is ahead of that of
showing by some frames."""
_BROKEN_READS = 16  # in a row, after which the rest of a container is given up


def _nothing() -> None:
    """The sign of life of a caller that wants none."""


class Video:
    """One video, opened: iterate over `frames()` once.

    `total` is how many frames it will give, estimated from what the container says; None where it says nothing.
    `skipped` counts the packets that could not be read or decoded so far.

    `interval` is the seconds between samples, above 0. `fit` is the longest side, in pixels, that the caller can make
    use of: larger frames are reduced to it, keeping their proportions. `on_packet` is called for every packet: a sign
    of life however far apart the samples are. `threads` is the decoder's. With the `position` of another that was
    paused, the frames are those behind it.

    Raises MediaTooLarge, Undecodable, or the OSError of the disk. The file stays the caller's to close.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        interval: float = 0.5,
        limits: VideoLimits | None = None,
        fit: int | None = None,
        on_packet: Callable[[], None] = _nothing,
        threads: int = 1,
        position: str | None = None,
    ) -> None:
        if not interval > 0:
            raise ValueError("the interval must be above 0")
        self.skipped = 0
        self._interval = interval
        self._limits = limits or VideoLimits()
        self._fit = fit
        self._on_packet = on_packet
        self._threads = threads
        self._file = file
        self._left_at = None if position is None else VideoPosition.decode(position)
        self._behind = self._left_at
        self._pausing = False
        self.is_paused = False
        self._converter = VideoReformatter()
        self._pixel_aspect = 1.0
        self._rotation: int | None = None
        self._matrix: Matrix = (1, 0, 0, 1)
        self._open()
        try:
            self._check_size(self._stream.codec_context.width, self._stream.codec_context.height)
            self._pixel_aspect = pixel_aspect(self._stream)
            self.total = self._estimate()
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> None:
        self._container = open_container(self._file, self._limits.max_pixels)
        try:
            self._stream = video_stream(self._container)
            self._stream.codec_context.thread_count = self._threads
            self._stream.codec_context.options = {"max_pixels": str(self._limits.max_pixels)}
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the decoder. The file is left open."""
        self._container.close()

    def pause(self) -> None:
        """Have `frames` end soon; may be called from any thread. Where it has not come to the end by then, `is_paused`
        is true afterwards and `position` says where another Video goes on."""
        self._pausing = True

    @property
    def position(self) -> str | None:
        """Behind the last frame that was decoded; None where that is the beginning."""
        return None if self._behind is None else self._behind.encode()

    def frames(self, on_found: Callable[[], None] = _nothing) -> Iterator[Frame]:
        """The first frame at or after every multiple of the interval, upright; `time` counts from the stream's start.

        `source_frame` counts the frames that can be decoded, in the order of time. Frames whose pixels are not square
        are widened to their shown proportions.

        `on_found` is called once the position where the frames are to begin has been found: at once where that is the
        beginning. `pause` must not be called before.

        Raises Undecodable if there is not one, and MediaTooLarge where the video turns out longer than it said.
        """
        left_at = self._left_at
        if left_at is None:
            on_found()
            yield from self._sampled(self._decoded_frames(), None)
            return
        source = self._frames_behind(left_at)
        if source is not None:
            on_found()
            yield from self._sampled(source, left_at)
            return
        self._container.close()
        self._file.seek(0)
        self._open()
        self.skipped = 0
        for frame in self._sampled(self._decoded_frames(), None):
            if frame.index == left_at.index:
                on_found()
            if frame.index >= left_at.index:
                yield frame

    def _sampled(self, source: Iterator[VideoFrame], left_at: VideoPosition | None) -> Iterator[Frame]:
        index, last_slot = (0, -1) if left_at is None else (left_at.index, left_at.slot)
        clock = self._clock(left_at)
        for number, frame in enumerate(source, 0 if left_at is None else left_at.decoded):
            time = clock.time_of(self._seconds(frame.pts))
            slot = math.floor((time + min(0.001, self._interval / 2)) / self._interval)
            picture = self._picture(frame) if slot > last_slot else None
            if picture is not None:
                self._check_length(index + 1, time)
                index, last_slot = index + 1, slot
            pts = None if clock.was_reset else frame.pts
            self._behind = VideoPosition(index, last_slot, number + 1, pts, clock.start, clock.last, self.skipped)
            if picture is not None:
                yield Frame(index=index - 1, time=time, picture=picture, source_frame=number)
        if index == 0 and not self.is_paused:
            raise Undecodable("not one frame of the video can be decoded")

    def _clock(self, left_at: VideoPosition | None) -> MediaClock:
        rate = self._stream.average_rate or self._stream.guessed_rate
        step = float(1 / rate) if rate else 1 / 25
        if left_at is None:
            return MediaClock(self._seconds(self._stream.start_time), step)
        return MediaClock(left_at.clock_start, step, left_at.clock_last)

    def _decoded_frames(self) -> Iterator[VideoFrame]:
        for packet in self._packets():
            self._on_packet()
            yield from self._decoded(packet)
            if self._pausing:
                self.is_paused = True
                return

    def _frames_behind(self, left_at: VideoPosition) -> Iterator[VideoFrame] | None:
        """The frames behind the one at which the video was left, found by its timestamp; None where it is not found."""
        if left_at.pts is None or self._stream.time_base is None:
            return None
        before = left_at.pts - int(_SOUGHT_BEFORE_SECONDS / self._stream.time_base)
        try:
            self._container.seek(max(before, self._stream.start_time or 0), stream=self._stream, backward=True)
        except av.FFmpegError:
            return None
        source = self._decoded_frames()
        for frame in source:
            if frame.pts == left_at.pts:
                self.skipped = left_at.skipped  # what was corrupt on the way here was counted before
                return source
            if frame.pts is None or frame.pts > left_at.pts:
                return None
        return None

    def _packets(self) -> Iterator["av.Packet[VideoStream]"]:
        broken = 0
        while broken < _BROKEN_READS:
            try:
                for packet in self._container.demux(self._stream):
                    broken = 0
                    yield packet
                return
            except av.FFmpegError as error:  # demuxing again goes on behind the fault
                broken += 1
                self._skip(error)

    def _decoded(self, packet: "av.Packet[VideoStream]") -> list[VideoFrame]:
        try:
            return packet.decode()
        except av.FFmpegError as error:
            self._skip(error)
            return []

    def _skip(self, error: Exception) -> None:
        if isinstance(error, MemoryError):
            raise error
        self.skipped += 1

    def _picture(self, frame: VideoFrame) -> Picture | None:
        self._check_size(frame.width, frame.height)
        width, height = reduced(*widened(frame.width, frame.height, self._pixel_aspect), self._fit)
        try:
            rgb = self._converter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        except (av.FFmpegError, ValueError) as error:  # a pixel format without a conversion
            self._skip(error)
            return None
        if frame.rotation != self._rotation:
            self._rotation, self._matrix = frame.rotation, display_matrix(frame)
        return upright(rgb.to_ndarray().astype(np.uint8, copy=False), self._matrix)

    def _estimate(self) -> int | None:
        seconds = self._seconds(self._stream.duration)
        if seconds is None and self._container.duration is not None:
            seconds = self._container.duration / av.time_base
        if seconds is None or seconds <= 0:
            return None
        total = max(1, math.ceil(seconds / self._interval - 0.001))
        if self._stream.frames > 0:
            total = min(total, self._stream.frames)
        self._check_length(total, seconds)
        return total

    def _seconds(self, ticks: int | None) -> float | None:
        base = self._stream.time_base
        return None if ticks is None or base is None else float(ticks * base)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            accepted = self._limits.max_pixels
            raise MediaTooLarge(f"the video has frames of {width} by {height} pixels; at most {accepted} are accepted")

    def _check_length(self, frames: int, seconds: float) -> None:
        if seconds > self._limits.max_seconds:
            raise MediaTooLarge(f"the video is longer than {self._limits.max_seconds:g} seconds")
        if frames > self._limits.max_frames:
            accepted = self._limits.max_frames
            raise MediaTooLarge(f"the video gives more than {accepted} frames; sample it at a longer interval")
