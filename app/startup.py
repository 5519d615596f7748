"""How the start of a server that cannot succeed ends: with one line that says why, and exit status 1."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import DetectionsError


@contextmanager
def ending_on_faults() -> Iterator[None]:
    """A wrong setting, or a folder or file that refuses, ends this process, its text being all that is said."""
    try:
        yield
    except (DetectionsError, OSError) as error:
        sys.exit(f"detections: {error}")
