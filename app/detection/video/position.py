"""Where a video was left, so that another process goes on with the very next frame."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

MAX_CHARACTERS = 1000
_MOST = 2**63


@dataclass(frozen=True, slots=True)
class VideoPosition:
    """Behind one decoded frame of a video.

    `index` is the number of the next sampled frame, `slot` the multiple of the interval that was sampled last, and
    `decoded` how many frames were decoded. `pts` is the last decoded frame's own timestamp, None where it has none or
    where timestamps come twice: then nothing can be found by it. `clock_start` and `clock_last` are what the MediaClock
    knew, `skipped` the packets that were corrupt.
    """

    index: int
    slot: int
    decoded: int
    pts: int | None
    clock_start: float | None
    clock_last: float | None
    skipped: int

    def encode(self) -> str:
        """As a text that `decode` takes."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "VideoPosition":
        """Raises ValueError for what `encode` did not make: it comes from a process that reads hostile media."""
        try:
            fields: dict[str, Any] = json.loads(text[:MAX_CHARACTERS])
            position = cls(**fields)
        except (TypeError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError("a position that is none") from error
        counts = (position.index, position.slot, position.decoded, position.skipped)
        times = (position.clock_start, position.clock_last)
        is_sound = (
            all(_is_whole(count) for count in counts)
            and (position.pts is None or _is_whole(position.pts))
            and all(time is None or _is_finite(time) for time in times)
        )
        if not is_sound:
            raise ValueError("a position with a number that is none")
        return position


def _is_whole(value: object) -> bool:
    return type(value) is int and -_MOST <= value < _MOST


def _is_finite(value: object) -> bool:
    return _is_whole(value) or (type(value) is float and math.isfinite(value))
