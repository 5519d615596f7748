"""The position at which a video was paused, so that another process continues with the next frame."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

MAX_CHARACTERS = 1000
_LIMIT = 2**63


@dataclass(frozen=True, slots=True)
class VideoPosition:
    """The position after one decoded frame of a video.

    `index` is the number of the next sampled frame, `slot` the multiple of the interval that was sampled last,
    `decoded` the number of frames decoded so far. `pts` is the last decoded frame's own timestamp; it is None if the
    frame has none or if timestamps repeat, so that the frame cannot be found by it. `clock_start` and `clock_last` are
    the MediaClock's state, `skipped` the number of corrupt packets.
    """

    index: int
    slot: int
    decoded: int
    pts: int | None
    clock_start: float | None
    clock_last: float | None
    skipped: int

    def encode(self) -> str:
        """Return the position as a text for `decode`."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "VideoPosition":
        """Return the encoded position.

        Raises ValueError for anything that `encode` did not make, because the text comes from a process that reads
        hostile media.
        """
        try:
            fields: dict[str, Any] = json.loads(text[:MAX_CHARACTERS])
            position = cls(**fields)
        except (TypeError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError("the position is not the JSON of a VideoPosition") from error
        counts = (position.index, position.slot, position.decoded, position.skipped)
        times = (position.clock_start, position.clock_last)
        is_valid = (
            all(_is_integer(count) for count in counts)
            and (position.pts is None or _is_integer(position.pts))
            and all(time is None or _is_finite(time) for time in times)
        )
        if not is_valid:
            raise ValueError("the position contains a value that is not a finite number")
        return position


def _is_integer(value: object) -> bool:
    return type(value) is int and -_LIMIT <= value < _LIMIT


def _is_finite(value: object) -> bool:
    return _is_integer(value) or (type(value) is float and math.isfinite(value))
