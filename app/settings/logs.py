"""Settings of logs: their level and format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from app.settings.reader import Reader

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "text"]


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The lowest level that is logged, and whether a line is JSON or text."""

    level: Level = "info"
    format: Format = "json"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "LogSettings":
        """Read and validate both settings. Raises SettingsError if one is wrong."""
        read = Reader(environ)
        return cls(
            level=read.one_of("LOG_LEVEL", "info", "debug", "warning", "error"),
            format=read.either("LOG_FORMAT", "json", "text"),
        )
