"""What the start of a server checks once, and how a start that cannot succeed ends: with one line that says why, and
exit status 1."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy.engine import make_url

from app.errors import DetectionsError
from app.settings import Settings
from app.sqlite_engine import place_warning
from app.storage import Storage

log = structlog.get_logger()


@contextmanager
def ending_on_faults() -> Iterator[None]:
    """A wrong setting, or a folder or file that refuses, ends this process, its text being all that is said."""
    try:
        yield
    except (DetectionsError, OSError) as error:
        sys.exit(f"detections: {error}")


def check_file_systems(settings: Settings) -> None:
    """Raise StorageFailed where the file system of a media folder cannot do what publishing needs."""
    Storage(settings.media_folders).ensure_fit()


def warn_of_place(database_url: str) -> None:
    """Log a warning where an SQLite database lies on a file system that does not do for it."""
    url = make_url(database_url)
    reason = place_warning(url) if url.get_backend_name() == "sqlite" else None
    if reason:
        log.warning("database_place", reason=reason)
