"""Settings of the database and of a pooler before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.errors import SettingsError
from app.settings.reader import Reader

POSTGRES = "postgresql+psycopg"
EXAMPLE = "sqlite:///var/detections.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """The database's URL and pooler.

    `pooler` is "transaction" if `url` leads to a pooler that gives each transaction another session of the server;
    `listen_url` then leads to the server itself, for notifications. `was_relative` says that the path in `url`, which
    is absolute here, was relative to the folder in which the process was started.
    """

    url: str = field(repr=False)  # may carry a password
    pooler: Literal["none", "transaction"] = "none"
    listen_url: str | None = field(default=None, repr=False)
    was_relative: bool = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read these settings only, for migrations. Raises SettingsError."""
        return cls.read(Reader(environ))

    @property
    def file(self) -> Path | None:
        """The absolute path of an SQLite database; None for another one."""
        parsed = make_url(self.url)
        return Path(parsed.database).absolute() if parsed.drivername == "sqlite" and parsed.database else None

    @classmethod
    def read(cls, read: Reader) -> Self:
        """Read and validate the settings. Raises SettingsError."""
        url = read.text("DATABASE_URL", EXAMPLE) or ""
        parsed = _parsed("DATABASE_URL", url, EXAMPLE)
        driver = parsed.drivername
        if driver == "sqlite":
            _check_query(url)
            return cls(
                url=_with_whole_path(parsed),
                pooler=_pooler(read, driver),
                listen_url=_listen_url(read, driver),
                was_relative=not (parsed.database or "").startswith("/"),
            )
        if driver not in ("sqlite", POSTGRES):
            raise SettingsError(f"DATABASE_URL must begin with sqlite:// or {POSTGRES}://, not {driver}://.")
        return cls(url=url, pooler=_pooler(read, driver), listen_url=_listen_url(read, driver))


def _check_query(url: str) -> None:
    _, mark, query = url.partition("?")
    if mark:
        raise SettingsError(
            f"DATABASE_URL has the parameters {query!r}, but for SQLite it may have none: remove them, or write %3F "
            "for a question mark in the path."
        )


def _with_whole_path(url: URL) -> str:
    """Return the URL with an absolute path, relative to the current folder if it was not."""
    path = url.database or ""
    if url.host is not None:
        raise SettingsError(
            f"DATABASE_URL begins with sqlite:// and the host {url.host!r}: write three slashes before a relative path "
            "and four before an absolute one, such as sqlite:////var/lib/detections/detections.db."
        )
    if path in ("", ":memory:") or path.startswith("file:"):
        raise SettingsError(
            f"DATABASE_URL must name a file on a disk, such as {EXAMPLE}, not {path or 'nothing'!r}: a database in "
            "memory is lost with its process, and file: paths are not supported."
        )
    return url.set(database=str(Path(path).absolute())).render_as_string(hide_password=False)


def _pooler(read: Reader, driver: str) -> Literal["none", "transaction"]:
    pooler: Literal["none", "transaction"] = read.either("DATABASE_POOLER", "none", "transaction")
    if pooler != "none" and driver != POSTGRES:
        raise SettingsError(f"DATABASE_POOLER is only for PostgreSQL, but DATABASE_URL begins with {driver}://.")
    return pooler


def _listen_url(read: Reader, driver: str) -> str | None:
    url = read.text("DATABASE_LISTEN_URL")
    if url is None:
        return None
    parsed = _parsed("DATABASE_LISTEN_URL", url, f"{POSTGRES}://host/detections")
    if driver != POSTGRES or parsed.drivername != POSTGRES:
        raise SettingsError(
            f"DATABASE_LISTEN_URL is only for PostgreSQL: it and DATABASE_URL must begin with {POSTGRES}://."
        )
    return url


def _parsed(name: str, url: str, example: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        raise SettingsError(f"{name} is not a database URL such as {example}.") from error
