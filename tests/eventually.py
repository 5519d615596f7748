"""Waiting for what happens by itself: the one way in which tests do it."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

PATIENCE = 60.0
"""Seconds after which what has not happened will not. Nobody waits for them in a test that passes."""


def eventually(condition: Callable[[], Value], what: str = "", *, seconds: float = PATIENCE) -> Value:
    """Return the first true value of `condition`, asked again and again. Fails after so many seconds, with `what` was
    waited for and the last value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain{what and f' for {what}'}; the last value was {value!r}")
        time.sleep(0.01)
    return value
