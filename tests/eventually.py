"""Waiting for what happens by itself: the one way in which tests do it."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

PATIENCE = 60.0
"""Seconds after which what has not happened will not. Nobody waits for them in a test that passes."""


def eventually(condition: Callable[[], Value | None], what: str = "", *, seconds: float = PATIENCE) -> Value:
    """Return the first true value of `condition`, asked again and again, the more seldom the longer it takes.

    Fails after so many seconds, with `what` was waited for and the last value.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"waited {seconds:g} s in vain{what and f' for {what}'}; the last value was {value!r}")
        time.sleep(min(0.01 + waited / 20, 0.1))
    return value
