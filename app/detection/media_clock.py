"""Timestamps as they are in real files, turned into seconds that never run backwards."""

_REORDERED_SECONDS = 1.0


class MediaClock:
    """Seconds from the start of a stream, frame by frame in the order in which they are shown.

    `start` is the stream's first timestamp in seconds, None if the container does not say; `step` is the usual time
    between frames, which stands in for missing timestamps. A jump back of more than a second is a clock that was
    reset (recordings joined together), and time goes on from where it was.
    """

    def __init__(self, start: float | None, step: float) -> None:
        self._start = start
        self._step = step
        self._last: float | None = None

    def time_of(self, timestamp: float | None) -> float:
        """The time of the next frame, at least 0, from its timestamp in seconds, None where it has none."""
        expected = 0.0 if self._last is None else self._last + self._step
        if timestamp is None:
            self._last = expected
            return expected
        if self._start is None:
            self._start = timestamp - expected
        time = max(0.0, timestamp - self._start)
        if time < expected - self._step - _REORDERED_SECONDS:
            self._start = timestamp - expected
            time = expected
        self._last = time
        return time
