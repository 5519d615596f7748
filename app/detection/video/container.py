"""Opens an untrusted video: its container and the one stream to decode.

Only accepted containers are opened, and the decoder cannot be made to open another file. Otherwise a playlist named
.mp4 could read the server's own files.
"""

from typing import BinaryIO

import av
import av.container
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from app.errors import Undecodable

FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,asf,flv"
_READ_BYTES = 256 * 1024
_MAX_PIXEL_ASPECT = 4
"""The largest credible ratio between a pixel's width and height."""


def open_container(file: BinaryIO, max_pixels: int) -> av.container.InputContainer:
    """Open a file as one of the accepted containers. Raises Undecodable, or the OSError of the disk."""
    options = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": "none",
        "enable_drefs": "0",
        "max_pixels": str(max_pixels),
    }
    try:
        return av.open(file, "r", options=options, metadata_errors="replace", buffer_size=_READ_BYTES)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        kinds = "MP4, MOV, Matroska, WebM, AVI, MPEG-TS, MPEG, Windows Media or Flash"
        raise Undecodable(f"this is not a complete {kinds} video") from error


def video_stream(container: av.container.InputContainer) -> VideoStream:
    """Return the stream that a player would play and discard the others. Cover art does not count as video.

    Raises Undecodable.
    """
    best = container.streams.best("video")
    if not isinstance(best, VideoStream) or Disposition.attached_pic in best.disposition:
        raise Undecodable("the file has no video stream")
    if best.codec_context is None:
        raise Undecodable("the video's codec is unknown")
    for stream in container.streams:
        if stream.index != best.index:
            stream.discard = Discard.all
    return best


def pixel_aspect(stream: VideoStream) -> float:
    """Return how many times as wide as high each pixel is shown; 1 where the file says nothing credible."""
    aspect = stream.sample_aspect_ratio
    if aspect is None or not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
        return 1.0
    return float(aspect)
