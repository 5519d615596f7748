"""Decodes an untrusted video and samples its frames by time.

Packets are decoded one by one, and only sampled frames are converted and returned, so memory does not grow with the
video.
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

_SEEK_MARGIN_SECONDS = 1
"""How far before a frame to seek: containers are searched in decoding order, which is some frames ahead of
presentation.
"""
_MAX_FAILED_READS = 16  # consecutive failed reads after which the rest of a container is skipped


def _ignore() -> None:
    """The default callback."""


class Video:
    """An open video. Iterate over `frames()` once.

    `interval` is the time between samples in seconds, above 0. `fit` is the longest useful side in pixels: larger
    frames are reduced to it, keeping their proportions. `on_packet` is called for each packet, as a heartbeat.
    `threads` is the decoder's. `position` is that of another Video that was paused; frames then start after it.

    `total` is the expected number of sampled frames, or None if the container does not tell. `skipped` counts packets
    that could not be read or decoded.

    Raises MediaTooLarge, Undecodable, or the disk's OSError. The caller closes the file.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        interval: float = 0.5,
        limits: VideoLimits | None = None,
        fit: int | None = None,
        on_packet: Callable[[], None] = _ignore,
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
        self._start = None if position is None else VideoPosition.decode(position)
        self._position = self._start
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
        """Close the decoder, but not the file."""
        self._container.close()

    def pause(self) -> None:
        """Make `frames` end soon. May be called from any thread.

        Afterwards `is_paused` is true unless the video had ended already, and `position` says where to continue.
        """
        self._pausing = True

    @property
    def position(self) -> str | None:
        """The position after the last decoded frame; None at the beginning."""
        return None if self._position is None else self._position.encode()

    def frames(self, on_start: Callable[[], None] = _ignore) -> Iterator[Frame]:
        """Yield the first frame at or after each multiple of the interval, upright and with square pixels.

        `time` counts in seconds from the stream's start, `source_frame` in decodable frames in order of presentation.
        `on_start` is called as soon as the starting position was found; `pause` must not be called before that.

        Raises Undecodable if no frame can be decoded, and MediaTooLarge if the video is longer than its container said.
        """
        start = self._start
        if start is None:
            on_start()
            yield from self._sample(self._decoded_frames(), None)
            return
        source = self._seek_after(start)
        if source is not None:
            on_start()
            yield from self._sample(source, start)
            return
        self._container.close()
        self._file.seek(0)
        self._open()
        self.skipped = 0
        for frame in self._sample(self._decoded_frames(), None):
            if frame.index == start.index:
                on_start()
            if frame.index >= start.index:
                yield frame

    def _sample(self, source: Iterator[VideoFrame], start: VideoPosition | None) -> Iterator[Frame]:
        index, last_slot = (0, -1) if start is None else (start.index, start.slot)
        clock = self._clock(start)
        for number, frame in enumerate(source, 0 if start is None else start.decoded):
            time = clock.time_of(self._seconds(frame.pts))
            slot = math.floor((time + min(0.001, self._interval / 2)) / self._interval)
            picture = self._picture(frame) if slot > last_slot else None
            if picture is not None:
                self._check_length(index + 1, time)
                index, last_slot = index + 1, slot
            pts = None if clock.was_reset else frame.pts
            self._position = VideoPosition(index, last_slot, number + 1, pts, clock.start, clock.last, self.skipped)
            if picture is not None:
                yield Frame(index=index - 1, time=time, picture=picture, source_frame=number)
        if index == 0 and not self.is_paused:
            raise Undecodable("no frame of the video can be decoded")

    def _clock(self, start: VideoPosition | None) -> MediaClock:
        rate = self._stream.average_rate or self._stream.guessed_rate
        step = float(1 / rate) if rate else 1 / 25
        if start is None:
            return MediaClock(self._seconds(self._stream.start_time), step)
        return MediaClock(start.clock_start, step, start.clock_last)

    def _decoded_frames(self) -> Iterator[VideoFrame]:
        for packet in self._packets():
            self._on_packet()
            yield from self._decoded(packet)
            if self._pausing:
                self.is_paused = True
                return

    def _seek_after(self, start: VideoPosition) -> Iterator[VideoFrame] | None:
        """Seek to `position` by its timestamp and return the frames after it, or None if it cannot be found."""
        if start.pts is None or self._stream.time_base is None:
            return None
        before = start.pts - int(_SEEK_MARGIN_SECONDS / self._stream.time_base)
        try:
            self._container.seek(max(before, self._stream.start_time or 0), stream=self._stream, backward=True)
        except av.FFmpegError:
            return None
        source = self._decoded_frames()
        for frame in source:
            if frame.pts == start.pts:
                self.skipped = start.skipped  # `skipped` already includes the corrupt packets before this position
                return source
            if frame.pts is None or frame.pts > start.pts:
                return None
        return None

    def _packets(self) -> Iterator["av.Packet[VideoStream]"]:
        failed = 0
        while failed < _MAX_FAILED_READS:
            try:
                for packet in self._container.demux(self._stream):
                    failed = 0
                    yield packet
                return
            except av.FFmpegError as error:  # demuxing again continues after the corrupt packet
                failed += 1
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
        except (av.FFmpegError, ValueError) as error:  # the pixel format cannot be converted
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
            raise MediaTooLarge(f"the video has more than {accepted} sampled frames; use a longer interval")
