"""What the start of a server checks once, and how a start that cannot succeed ends: with one line that says why, and
exit status 1."""

import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import structlog
from sqlalchemy.engine import make_url

from app.database.sqlite_engine import location_warning
from app.errors import DetectionsError
from app.settings import DatabaseSettings, Settings
from app.storage import Storage

log = structlog.get_logger()


@contextmanager
def exit_on_error() -> Iterator[None]:
    """A wrong setting, or a folder or file that refuses, ends this process, its text being all that is said."""
    try:
        yield
    except (DetectionsError, OSError) as error:
        sys.exit(f"detections: {error}")


def check_file_systems(settings: Settings) -> None:
    """Raise StorageFailed where the file system of a media folder cannot do what publishing needs."""
    Storage(settings.media_folders).ensure_fit()


def log_database_location(settings: DatabaseSettings) -> None:
    """Log where an SQLite database lies, if that follows from where this process was started, and a warning where it is
    a file system that does not do for it."""
    url = make_url(settings.url)
    if url.get_backend_name() != "sqlite":
        return
    if settings.was_relative:
        log.info("database_file", path=url.database)
    reason = location_warning(url)
    if reason:
        log.warning("database_location_unfit", reason=reason)


def warn_about_plain_http(settings: Settings) -> None:
    """Log one line for each address of another machine that is reached without TLS."""
    addresses = {
        "ANNOTATIONS_URL": (settings.annotations.url, "tokens and records can be read and changed on their way"),
        "JWT_JWKS_URL": (settings.tokens.jwks_url, "whoever sits between can put in keys of their own"),
    }
    for setting, (url, danger) in addresses.items():
        parts = urlsplit(url or "")
        if parts.scheme == "http" and not _is_this_machine(parts.hostname or ""):
            log.warning(
                "plain_http_to_another_host", setting=setting, host=parts.hostname, advice=f"{danger}; use https"
            )


def warn_about_disabled_work(settings: Settings) -> None:
    """Log one line for each part of the work that nobody does as things are set."""
    if settings.annotations.url is None:
        log.warning("nothing_is_delivered", setting="ANNOTATIONS_URL", advice="messages wait until it is set")
    elif settings.dispatcher == "off":
        log.warning("not_delivered_here", setting="DISPATCHER=off", advice="`flask outbox run` is to run beside")
    if settings.detection == "off":
        log.warning("not_detected_here", setting="DETECTION=off", advice="`flask detect run` is to run beside")


def _is_this_machine(host: str) -> bool:
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name == socket.gethostname().lower():
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
