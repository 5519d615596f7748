"""Limits on one media item and on a detector process. The web process imports this module, so it needs no decoder."""

from dataclasses import dataclass, field

MAX_PIXELS = 1_000_000_000
"""Pixels of a still picture. `ProcessLimits.memory_bytes` may allow fewer once decoded, depending on the format."""


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """A video beyond any of these limits is refused with MediaTooLarge."""

    max_pixels: int = 36_000_000  # per frame; 8K has 33 million
    max_frames: int = 200_000  # sampled frames
    max_seconds: float = 86_400.0


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """The limits of pictures and of videos."""

    picture_pixels: int = MAX_PIXELS
    video: VideoLimits = field(default_factory=VideoLimits)


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Resource limits of a detector process.

    `memory_bytes` bounds its address space. `stall_seconds` is the longest time without a heartbeat, including its
    start and the loading of the model. `picture_seconds` bounds the processor time for decoding one picture, because
    picture decoders report no progress. `run_seconds` bounds one job. `stop_seconds` is the time between SIGTERM and
    SIGKILL. `niceness` is added to the parent's: beside a process of normal priority, one that is 10 nicer gets about a
    tenth of a busy processor, so uploads and answers come first.
    """

    memory_bytes: int = 4 * 1024**3
    stall_seconds: float = 60.0
    picture_seconds: float = 20.0
    run_seconds: float = 6 * 3600.0
    stop_seconds: float = 2.0
    niceness: int = 10
