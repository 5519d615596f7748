"""A media folder whose file system lacks what publishing needs: at the start, and when it comes to be so later."""

import sys
import time
from pathlib import Path

import pytest

from app.storage.folder_probe import PROBE_SECONDS
from tests import fork_server
from tests.api.conftest import picture
from tests.ingest.test_crash_points import WHY_NOT
from tests.paths import ROOT
from tests.storage.exfat import mounted_exfat
from tests.system.refusing import readiness, refusing, worker_of
from tests.system.service import Service, surroundings


def test_a_start_on_a_disk_without_hard_links_ends_with_one_line_and_leaves_nothing(
    tmp_path: Path, sqlite_url: str
) -> None:
    with mounted_exfat(tmp_path) as disk:
        service = Service(disk, sqlite_url, None, TMPDIR=str(tmp_path), DETECTION="off")
        ended = fork_server.run(
            [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "-b", "127.0.0.1:0", "wsgi:app"],
            cwd=ROOT,
            env=surroundings() | service.environment,
            timeout=60,
        )
        assert ended.returncode == 1
        [line] = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
        assert line.startswith(f"detections: The folder {disk}")
        assert "no hard links (link: " in line
        assert service.leftovers() == []
        assert service.stored() == set()


def test_a_start_with_its_database_on_a_disk_served_from_user_space_warns_of_it(
    tmp_path: Path, sqlite_template: Path
) -> None:
    with mounted_exfat(tmp_path) as disk:
        (disk / "detections.db").write_bytes(sqlite_template.read_bytes())
        service = Service(tmp_path, f"sqlite:///{disk / 'detections.db'}", None)
        try:
            service.start()
        finally:
            service.stop()
            service.kill()
        [line] = [line for line in service.log.read_text().splitlines() if "database_location_unfit" in line]
        assert str(disk) in line
        assert '"level": "warning"' in line


@pytest.mark.long
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace works")
def test_links_that_fail_later_are_told_by_readiness_and_uploads_are_refused_until_they_work(
    tmp_path: Path, sqlite_url: str
) -> None:
    service = Service(tmp_path, sqlite_url, None, DETECTION="off")
    try:
        service.start()
        assert readiness(service, 200)
        with refusing("link", worker_of(service), tmp_path / "trace"):
            assert "has no hard links (link: Operation not permitted)" in readiness(service, 503)
            refused = service.upload("/media", picture(1))
            assert refused.status_code == 503
            assert "no hard links" in refused.json()["detail"]
            assert int(refused.headers["Retry-After"]) > 0
        assert readiness(service, 200)
        assert service.upload("/media", picture(1)).status_code == 201
        assert service.leftovers() == []
    finally:
        service.stop()
        service.kill()


@pytest.mark.long
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace works")
def test_after_one_upload_that_failed_for_want_of_links_the_next_is_refused_with_the_reason(
    tmp_path: Path, sqlite_url: str
) -> None:
    service = Service(tmp_path, sqlite_url, None, DETECTION="off")
    try:
        service.start()
        with refusing("link", worker_of(service), tmp_path / "trace"):
            assert service.upload("/media", picture(1)).status_code == 500
            refused = service.upload("/media", picture(1))
            assert refused.status_code == 503
            assert "no hard links" in refused.json()["detail"]
        time.sleep(PROBE_SECONDS)
        assert service.upload("/media", picture(1)).status_code == 201
        assert service.leftovers() == []
    finally:
        service.stop()
        service.kill()
