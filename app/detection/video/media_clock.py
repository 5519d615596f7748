"""Timestamps as they are in real files, turned into seconds that never run backwards."""

_REORDERED_SECONDS = 1.0


class MediaClock:
    """Seconds from the start of a stream, frame by frame in the order in which they are shown.

    `start` is the stream's first timestamp in seconds, None if the container does not say; `step` is the usual time
    between frames, which stands in for missing timestamps. A jump back of more than a second is a clock that was
    reset (recordings joined together), and time goes on from where it was. `last` is the time of the frame before, for
    a clock that goes on with the `start` and the `last` of another.
    """

    def __init__(self, start: float | None, step: float, last: float | None = None) -> None:
        self.start = start
        self.last = last
        self.was_reset = False
        self._step = step

    def time_of(self, timestamp: float | None) -> float:
        """The time of the next frame, at least 0, from its timestamp in seconds, None where it has none."""
        expected = 0.0 if self.last is None else self.last + self._step
        if timestamp is None:
            self.last = expected
            return expected
        if self.start is None:
            self.start = timestamp - expected
        time = max(0.0, timestamp - self.start)
        if time < expected - self._step - _REORDERED_SECONDS:
            self.start = timestamp - expected
            self.was_reset = True
            time = expected
        self.last = time
        return time
