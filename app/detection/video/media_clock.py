"""Converts the timestamps of real files into seconds that never run backwards."""

_REORDERED_SECONDS = 1.0


class MediaClock:
    """Presentation times in seconds from the start of a stream.

    `start` is the stream's first timestamp in seconds, None if the container does not say. `step` is the usual time
    between frames, used where a timestamp is missing. A jump back of more than a second means that the clock was reset
    (joined recordings); time then continues from the last frame. `last` is the time of the previous frame, used to
    continue from another clock's `start` and `last`.
    """

    def __init__(self, start: float | None, step: float, last: float | None = None) -> None:
        self.start = start
        self.last = last
        self.was_reset = False
        self._step = step

    def time_of(self, timestamp: float | None) -> float:
        """Return the time of the next frame in seconds, at least 0.

        `timestamp` is the frame's own, in seconds, or None. Call it for each frame in order of presentation.
        """
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
