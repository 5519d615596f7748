"""Parameters as clients write them, parsed strictly: what is not understood is refused by its name."""

import math

from app.errors import MalformedUpload

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def parse_flag(name: str, text: str) -> bool:
    """A value that is true or false; raises MalformedUpload."""
    if text.lower() not in _FLAGS:
        raise MalformedUpload(f"{name} must be true or false, not {text[:80]!r}.")
    return _FLAGS[text.lower()]


def parse_number(
    name: str, text: str, *, above: float = -math.inf, least: float = -math.inf, maximum: float = math.inf
) -> float:
    """A number within bounds: above one, or at least one, and at most another; raises MalformedUpload."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (above < value <= maximum and value >= least):
        bound = f"at least {least:g}" if above == -math.inf else f"more than {above:g}"
        raise MalformedUpload(f"{name} must be {bound} and at most {maximum:g}, not {text[:80]!r}.")
    return value
