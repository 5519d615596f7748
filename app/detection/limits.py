"""How much one media may ask for. Plain numbers, so that the web process can hold them without any decoder."""

from dataclasses import dataclass, field

MAX_PIXELS = 1_000_000_000
"""Pixels of a still picture. `ProcessLimits.memory_bytes` holds fewer once they are decoded, how many by the format."""


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """Beyond any of these a video is refused with MediaTooLarge."""

    max_pixels: int = 36_000_000  # of one frame: 8K is 33 million
    max_frames: int = 200_000  # sampled, not contained
    max_seconds: float = 86_400.0


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """The limits of both kinds of media."""

    picture_pixels: int = MAX_PIXELS
    video: VideoLimits = field(default_factory=VideoLimits)


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What a detector process may take.

    `memory_bytes` bounds its address space. `stall_seconds` is how long it may give no sign of life, its start and the
    loading of the model included. `picture_seconds` bounds the processor time that the decoding of a still picture may
    take: no decoder of pictures says how far it has come. `run_seconds` is the longest that one job may take.
    `stop_seconds` is its grace between being asked to end and being killed. `niceness` is added to its parent's:
    uploads and answers come first, because beside a process of normal priority one that is 10 nicer gets a tenth of a
    busy processor.
    """

    memory_bytes: int = 4 * 1024**3
    stall_seconds: float = 60.0
    picture_seconds: float = 20.0
    run_seconds: float = 6 * 3600.0
    stop_seconds: float = 2.0
    niceness: int = 10
