"""Reliability row 30: a media folder that is not there, before the start and while running."""

import shutil
from pathlib import Path

import pytest

from app.storage.folder_ownership import ACCEPT
from tests.system.promise import photo
from tests.system.service import Service


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str) -> Service:
    return Service(tmp_path, sqlite_url, None)


def unmount(service: Service) -> Path:
    """What is left is the folder that the disk was mounted on."""
    away = service.images.with_name("the disk")
    service.images.rename(away)
    service.images.mkdir()
    return away


def mount(service: Service, disk: Path) -> None:
    assert list(service.images.iterdir()) == [], "something was stored elsewhere"
    service.images.rmdir()
    disk.rename(service.images)


def test_a_folder_that_is_not_there_stops_the_start_with_one_line(service: Service) -> None:
    try:
        service.start()
        assert service.upload("/media", photo(1), name="a.png").status_code == 201
        service.stop()
        disk = unmount(service)
        before = service.log.stat().st_size
        with pytest.raises(RuntimeError, match="did not start"):
            service.start()
        lines = service.log.read_bytes()[before:].decode().splitlines()
        [line] = [line for line in lines if line.startswith("detections: ")]
        assert f"{service.images} has no marker" in line
        assert ACCEPT in line
        assert not any("Traceback" in one for one in lines)
        refused = service.flask("detect", "run")
        assert refused.returncode == 1
        assert len(refused.stderr.strip().splitlines()) == 1
        mount(service, disk)
        service.start()
        assert service.upload("/media", photo(1), name="a.png").status_code == 200
    finally:
        service.stop()
        service.kill()


def test_a_folder_that_vanishes_while_running_is_told_and_works_again_by_itself(service: Service) -> None:
    try:
        service.start()
        assert service.upload("/media", photo(1), name="a.png").status_code == 201
        disk = unmount(service)
        ready = service.request("GET", "/readyz")
        assert ready.status_code == 503
        assert "images has no marker" in ready.json()["detail"]
        assert str(service.images) not in ready.json()["detail"], "everybody may ask"
        for path in ("/media", "/detect"):
            refused = service.upload(path, photo(2), name="b.png")
            assert refused.status_code == 503
            assert refused.json()["type"][-11:] == "unavailable"
            assert refused.headers["Retry-After"]
        assert 'detections_media_folder_ok{place="images"} 0.0' in service.request("GET", "/metrics").text
        mount(service, disk)
        assert service.request("GET", "/readyz").status_code == 200
        assert service.upload("/media", photo(2), name="b.png").status_code == 201
        log = service.log.read_text()
        assert log.count("media_folder_unusable") == 1
        assert log.count("media_folder_usable_again") == 1
    finally:
        service.stop()
        service.kill()


def test_a_folder_that_was_replaced_on_purpose_is_accepted_by_one_command(service: Service) -> None:
    try:
        service.start()
        assert service.upload("/media", photo(1), name="a.png").status_code == 201
        service.stop()
        copy = service.images.with_name("copy")
        copy.mkdir()
        for path in service.images.iterdir():
            if path.is_file():
                shutil.copy(path, copy)
        shutil.rmtree(service.images)
        copy.rename(service.images)
        with pytest.raises(RuntimeError):
            service.start()
        accepted = service.flask("media", "accept-folders")
        assert accepted.returncode == 0, accepted.stderr
        service.start()
        assert service.upload("/media", photo(1), name="a.png").status_code == 200
    finally:
        service.stop()
        service.kill()
