"""Typed access to environment variables; nothing else reads the environment.

A wrong value raises SettingsError with one line that names the variable and shows no secret.
"""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from app.errors import SettingsError

Number = TypeVar("Number", int, float)
Word = TypeVar("Word", bound=str)

_QUOTES = ('"', "'")


class Reader:
    """Reads variables. An empty variable counts as unset; an unset one without a default is None."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ

    def text(self, name: str, default: str | None = None) -> str | None:
        """Return a text without surrounding spaces; refuse one in quotes, which `--env-file` does not remove."""
        text = self._environ.get(name, "").strip()
        if text[:1] in _QUOTES or text[-1:] in _QUOTES:
            raise SettingsError(f"{name} must not begin or end with a quotation mark; no shell removes it here.")
        return text or default

    def file_name(self, name: str) -> str | None:
        """Return a path; refuse one that a shell would have to expand."""
        text = self.text(name)
        if text and text[0] in "~$":
            raise SettingsError(f"{name} must be a literal path, not {text!r}: no shell expands {text[0]} here.")
        return text

    def folder(self, name: str, default: str) -> Path:
        """Return the absolute path of a folder, which may not exist yet; refuse a file and the root."""
        path = Path(self.file_name(name) or default).absolute()
        if path.resolve() == Path("/"):
            raise SettingsError(f"{name} must be a folder of its own, not {str(path)!r}.")
        if path.exists() and not path.is_dir():
            raise SettingsError(f"{name} must name a folder; {str(path)!r} is a file.")
        return path

    def integer(self, name: str, default: int, *, minimum: int, maximum: int = 1 << 62) -> int:
        """Return a whole number in [minimum, maximum]."""
        value = self._parsed(name, default, int, "a whole number")
        if value < minimum:
            raise SettingsError(f"{name} must be at least {minimum}, not {value}.")
        if value > maximum:
            raise SettingsError(f"{name} must be at most {maximum}, not {value}.")
        return value

    def number(
        self, name: str, default: float, *, above: float = -math.inf, least: float = -math.inf, maximum: float = 1e9
    ) -> float:
        """Return a number in (above, maximum], or in [least, maximum]."""
        value = self._parsed(name, default, float, "a number")
        if not (above < value <= maximum and value >= least):
            bound = f"at least {least:g}" if above == -math.inf else f"more than {above:g}"
            raise SettingsError(f"{name} must be {bound} and at most {maximum:g}, not {value:g}.")
        return value

    def either(self, name: str, default: Word, other: Word) -> Word:
        """Return one of two words."""
        return self.one_of(name, default, other)

    def one_of(self, name: str, default: Word, *others: Word) -> Word:
        """Return one of several words."""
        value = self.text(name, default)
        for word in (default, *others):
            if value == word:
                return word
        words = ", ".join((default, *others[:-1]))
        raise SettingsError(f"{name} must be {words} or {others[-1]}, not {value!r}.")

    def existing_file(self, name: str) -> Path | None:
        """Return the absolute path of an existing file that is not empty."""
        text = self.file_name(name)
        if text is None:
            return None
        path = Path(text).absolute()
        if not path.is_file():
            raise SettingsError(f"{name} must name a file; there is none at {str(path)!r}.")
        if path.stat().st_size == 0:
            raise SettingsError(f"{name} must name a file that is not empty; {str(path)!r} is.")
        return path

    def existing_folder(self, name: str) -> Path | None:
        """Return the absolute path of an existing folder."""
        text = self.file_name(name)
        if text is None:
            return None
        path = Path(text).absolute()
        if not path.is_dir():
            raise SettingsError(f"{name} must name a folder; there is none at {str(path)!r}.")
        return path

    def web_address(self, name: str) -> str | None:
        """Return an http or https address without user and password."""
        value = self.text(name)
        if value is None:
            return None
        if "@" in value:  # a password would appear in logs and replace the token in the Authorization header
            raise SettingsError(f"{name} must not carry a user or a password.")
        if not _is_web_address(value):
            raise SettingsError(f"{name} must be an http:// or https:// address with a host, not {value!r}.")
        return value

    def _parsed(self, name: str, default: Number, parse: Callable[[str], Number], wanted: str) -> Number:
        text = self.text(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{name} must be {wanted}, not {text!r}.") from error


def _is_web_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
