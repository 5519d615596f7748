"""A database's disk that refuses to be written: told by every answer as what it is, and over when the disk is well."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import picture
from tests.ingest.test_crash_points import WHY_NOT
from tests.system.refusing import readiness, refusing, worker_of
from tests.system.service import Service

pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace works")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "d.db").write_bytes(sqlite_template.read_bytes())
    service = Service(folder, f"sqlite:///{folder / 'd.db'}", None, DETECTION="off")
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


@pytest.mark.parametrize(
    ("number", "call", "error", "status", "words"),
    [
        (1, "pwrite64", "EIO", 503, "disk failed"),
        (2, "pwrite64", "EDQUOT", 507, "disk is full"),
        (3, "pwrite64", "ENOSPC", 507, "disk is full"),
        (4, "fdatasync", "EIO", 503, "disk failed"),
    ],
)
def test_a_database_that_cannot_be_written_is_told_by_uploads_and_readiness_and_recovers_by_itself(
    service: Service, number: int, call: str, error: str, status: int, words: str
) -> None:
    before = service.log.stat().st_size
    with refusing(call, worker_of(service), service.folder / "trace", error):
        for _upload in range(3):
            refused = service.upload("/media", picture(number))
            assert refused.status_code == status, refused.text
            assert words in refused.json()["detail"]
            assert status == 507 or int(refused.headers["Retry-After"]) > 0
        assert words in readiness(service, 503)
    readiness(service, 200)
    stored = service.upload("/media", picture(number))
    assert stored.status_code in (200, 201)
    lines = [json.loads(line) for line in service.log.read_bytes()[before:].splitlines() if line.startswith(b"{")]
    events = [line["event"] for line in lines]
    assert events.count("database_failed") == 1
    assert events.count("database_works_again") == 1
    assert b"Traceback" not in service.log.read_bytes()[before:]
