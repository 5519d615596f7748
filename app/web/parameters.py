"""Strict parsing of query parameters and preferences; errors name the parameter."""

import math
import re

from flask import request
from werkzeug.http import parse_date

from app.errors import MalformedUpload
from app.formats.parameter_values import parse_flag, parse_number

_ONE_RANGE = re.compile(r"bytes *= *([0-9]{0,20}) *- *([0-9]{0,20}) *", re.IGNORECASE)
MAX_SECONDS = 1e9


def flag(name: str, *, default: bool) -> bool:
    """Return a boolean query parameter."""
    text = request.args.get(name)
    return default if text is None else parse_flag(name, text)


def integer(name: str, *, default: int | None, minimum: int, maximum: int) -> int | None:
    """Return an integer query parameter within bounds."""
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and minimum <= int(text) <= maximum):
        raise MalformedUpload(f"{name} must be a whole number from {minimum} to {maximum}, not {text[:80]!r}.")
    return int(text)


def number(name: str, *, default: float, above: float = -math.inf, least: float = -math.inf, maximum: float) -> float:
    """Return a numeric query parameter: more than `above`, at least `least`, and at most `maximum`."""
    text = request.args.get(name)
    return default if text is None else parse_number(name, text, above=above, least=least, maximum=maximum)


def seconds(name: str) -> float | None:
    """Return a query parameter in seconds, or None."""
    text = request.args.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= MAX_SECONDS:
        raise MalformedUpload(f"{name} must be seconds from 0 to {MAX_SECONDS:g}, not {text[:80]!r}.")
    return value


def choice(name: str, allowed: tuple[str, ...]) -> str | None:
    """Return a query parameter that must be one of `allowed`, or None."""
    text = request.args.get(name)
    if text is not None and text not in allowed:
        raise MalformedUpload(f"{name} must be one of {', '.join(allowed)}, not {text[:80]!r}.")
    return text


def ignore_impossible_dates() -> None:
    """Remove conditions with invalid dates from the request, which RFC 9110 wants ignored."""
    for name in ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_RANGE"):
        try:
            parse_date(request.environ.get(name))
        except OverflowError:  # werkzeug ignores every other invalid date
            del request.environ[name]


def ignore_impossible_ranges(size: int) -> None:
    """Remove a `Range` that is not one range of bytes, and shorten a suffix range that is too long.

    RFC 9110 allows ignoring malformed and multiple ranges and unknown units, and the last 1000 bytes of a file of 500
    `size` are the whole file. werkzeug would answer each with 416.
    """
    text = request.environ.get("HTTP_RANGE")
    if text is None:
        return
    match = _ONE_RANGE.fullmatch(text)
    first, last = match.groups() if match else ("", "")
    if not (first or last) or (first and last and int(last) < int(first)):
        del request.environ["HTTP_RANGE"]
    elif not first and int(last) > size:
        request.environ["HTTP_RANGE"] = "bytes=0-"


def prefers_async() -> bool:
    """Return whether the client sent `Prefer: respond-async` (RFC 7240)."""
    return "respond-async" in _preferences()


def preferred_wait() -> float:
    """Return the seconds of `Prefer: wait=…` (RFC 7240), 0 if absent."""
    text = next((word.partition("=")[2] for word in _preferences() if word.startswith("wait=")), "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0


def _preferences() -> list[str]:
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    return [preference.split(";")[0].strip().lower() for preference in preferences]
