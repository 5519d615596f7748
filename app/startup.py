"""How a start that cannot succeed ends: with one line that says why, and exit status 1."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import SettingsError


@contextmanager
def ending_on_wrong_settings() -> Iterator[None]:
    """A SettingsError within ends this process, its text being all that is said."""
    try:
        yield
    except SettingsError as error:
        sys.exit(f"detections: {error}")
