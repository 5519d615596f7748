"""Checks at the start of a server; a start that cannot succeed ends with one line and exit status 1."""

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
    """Exit with status 1 and the error's text, if the block raises DetectionsError or OSError."""
    try:
        yield
    except (DetectionsError, OSError) as error:
        sys.exit(f"detections: {error}")


def check_file_systems(settings: Settings) -> None:
    """Raise StorageFailed if the file system of a media folder lacks what publishing needs."""
    Storage(settings.media_folders).ensure_fit()


def log_database_location(settings: DatabaseSettings) -> None:
    """Log the path of an SQLite database if its setting is relative, and a warning if its file system is unsuitable."""
    url = make_url(settings.url)
    if url.get_backend_name() != "sqlite":
        return
    if settings.was_relative:
        log.info("database_file", path=url.database)
    reason = location_warning(url)
    if reason:
        log.warning("database_location_unfit", reason=reason)


def warn_about_plain_http(settings: Settings) -> None:
    """Log a warning for each URL of another machine without TLS."""
    addresses = {
        "ANNOTATIONS_URL": (settings.annotations.url, "tokens and records can be read and changed in transit"),
        "JWT_JWKS_URL": (settings.tokens.jwks_url, "an attacker in between can replace the keys"),
    }
    for setting, (url, danger) in addresses.items():
        parts = urlsplit(url or "")
        if parts.scheme == "http" and not _is_this_machine(parts.hostname or ""):
            log.warning(
                "plain_http_to_another_host", setting=setting, host=parts.hostname, advice=f"{danger}; use https"
            )


def warn_about_disabled_work(settings: Settings) -> None:
    """Log a warning for delivery and detection if this server does not do them."""
    if settings.annotations.url is None:
        log.warning("delivery_disabled", setting="ANNOTATIONS_URL", advice="messages wait until it is set")
    elif settings.dispatcher == "off":
        log.warning("delivery_elsewhere", setting="DISPATCHER=off", advice="run `flask outbox run` beside this server")
    if settings.detection == "off":
        log.warning("detection_elsewhere", setting="DETECTION=off", advice="run `flask detect run` beside this server")


def _is_this_machine(host: str) -> bool:
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name == socket.gethostname().lower():
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
