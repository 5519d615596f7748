"""Strict parsers for clients' parameters; errors name the parameter and its value."""

import math

from app.errors import MalformedUpload

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def parse_flag(name: str, text: str) -> bool:
    """Parse true, false, 1 or 0. Raises MalformedUpload for anything else."""
    if text.lower() not in _FLAGS:
        raise MalformedUpload(f"{name} must be true or false, not {text[:80]!r}.")
    return _FLAGS[text.lower()]


def parse_number(
    name: str, text: str, *, above: float = -math.inf, least: float = -math.inf, maximum: float = math.inf
) -> float:
    """Parse a number in (above, maximum], or in [least, maximum]. Raises MalformedUpload for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (above < value <= maximum and value >= least):
        bound = f"at least {least:g}" if above == -math.inf else f"more than {above:g}"
        raise MalformedUpload(f"{name} must be {bound} and at most {maximum:g}, not {text[:80]!r}.")
    return value
