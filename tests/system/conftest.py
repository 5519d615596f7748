"""A running service with a running annotations service beside it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reference.service import ReferenceService
from tests.system.service import SECRET, Service


@pytest.fixture
def annotations(tmp_path: Path) -> Iterator[ReferenceService]:
    with ReferenceService(tmp_path / "annotations.db", SECRET) as service:
        yield service


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str, annotations: ReferenceService) -> Iterator[Service]:
    """Gunicorn on SQLite, delivering to `annotations`."""
    service = Service(tmp_path, sqlite_url, annotations.url)
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()
