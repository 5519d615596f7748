"""`flask media upload` of large files against the service under gunicorn: what breaks goes on, and is not sent twice.

The parts are of a MiB here, by the command's own option.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app import create_command_app
from tests.servers.cutting_proxy import CuttingProxy
from tests.system.proxy import Proxy
from tests.system.service import Service, shared_service, token

MIB = 1 << 20
SIZE = 6 * MIB
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    with shared_service(tmp_path_factory.mktemp("service"), sqlite_template) as service:
        yield service


def port(service: Service) -> int:
    return int(service.url.rpartition(":")[2])


def video(path: Path, size: int = SIZE) -> Path:
    """A file that begins like a video, and is unlike every other one anywhere."""
    path.write_bytes(MP4 + os.urandom(size - len(MP4)))
    return path


def upload(url: str, file: Path, *options: str, exit_code: int = 0) -> Any:
    """What the command says of a file, with --json."""
    environment = {
        "DETECTIONS_URL": url,
        "DETECTIONS_TOKEN": token(),
        "XDG_STATE_HOME": str(file.parent / "state"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    arguments = ["media", "upload", "--json", "--no-detect", "--part-size", "1", *options, str(file)]
    ended = create_command_app().test_cli_runner().invoke(args=arguments, env=environment)
    assert ended.exit_code == exit_code, (ended.stdout, ended.stderr, ended.exception)
    [told] = json.loads(ended.stdout)
    return told


def is_stored(service: Service, told: Any, file: Path) -> bool:
    return (service.videos / f"{told['id']}.mp4").read_bytes() == file.read_bytes()


def remembered(file: Path) -> list[str]:
    """The uploads that the command remembers."""
    return [path.read_text() for path in (file.parent / "state" / "detections" / "uploads").iterdir()]


def test_a_large_file_goes_in_parts_and_a_small_one_in_one_request(service: Service, tmp_path: Path) -> None:
    large, small = video(tmp_path / "large.mp4", 2 * MIB + 1), video(tmp_path / "small.mp4", MIB)
    before = service.log.read_text().count('"method": "PATCH"')
    assert [upload(service.url, file)["outcome"] for file in (large, small)] == ["uploaded", "uploaded"]
    assert service.log.read_text().count('"method": "PATCH"') == before + 3
    assert upload(service.url, large)["outcome"] == "already there"
    assert remembered(large) == []


def test_a_link_that_breaks_twice_costs_what_was_under_way_and_no_more(service: Service, tmp_path: Path) -> None:
    file = video(tmp_path / "broken.mp4", 12 * MIB)
    cuts = (3 * MIB + 1, 9 * MIB + 2)
    with CuttingProxy(port(service), cuts) as proxy:
        told = upload(proxy.url, file, "--part-size", "64", "--attempts", "2")
        assert proxy.cuts == []
    assert told["outcome"] == "uploaded"
    assert told["resumedAt"] > 8 * MIB
    assert is_stored(service, told, file)
    assert proxy.passed < file.stat().st_size + MIB


def test_a_command_that_was_ended_goes_on_when_it_is_run_again(service: Service, tmp_path: Path) -> None:
    file = video(tmp_path / "again.mp4")
    with CuttingProxy(port(service), (4 * MIB,)) as proxy:
        first = upload(proxy.url, file, "--attempts", "1", exit_code=1)
        assert len(remembered(file)) == 1
        second = upload(proxy.url, file, "--attempts", "1")
    assert first["outcome"] == "failed"
    assert second["outcome"] == "uploaded"
    assert second["resumedAt"] > 3 * MIB
    assert is_stored(service, second, file)
    assert remembered(file) == []


def test_a_file_that_was_changed_meanwhile_begins_anew(service: Service, tmp_path: Path) -> None:
    file = video(tmp_path / "changed.mp4")
    with CuttingProxy(port(service), (4 * MIB,)) as proxy:
        upload(proxy.url, file, "--attempts", "1", exit_code=1)
    with file.open("r+b") as other:
        other.seek(5000)  # which the id's sample leaves out
        other.write(b"other")
    told = upload(service.url, file)
    assert told["outcome"] == "uploaded"
    assert told["resumedAt"] is None
    assert is_stored(service, told, file)


def test_a_service_that_is_killed_and_started_again_goes_on_from_what_it_has(service: Service, tmp_path: Path) -> None:
    file = video(tmp_path / "restart.mp4")

    def restart() -> None:
        service.kill()
        service.start()
        proxy.target = port(service)

    with CuttingProxy(port(service), (4 * MIB,), restart) as proxy:
        told = upload(proxy.url, file)
    assert told["outcome"] == "uploaded"
    assert told["resumedAt"] >= 3 * MIB  # each part is on the disk before it is acknowledged
    assert is_stored(service, told, file)


def test_an_upload_that_is_gone_begins_anew(service: Service, tmp_path: Path) -> None:
    file = video(tmp_path / "gone.mp4")
    with CuttingProxy(port(service), (4 * MIB,)) as proxy:
        upload(proxy.url, file, "--attempts", "1", exit_code=1)
    [upload_id] = remembered(file)
    gone = service.request("DELETE", f"/uploads/{upload_id}", headers={"Tus-Resumable": "1.0.0"})
    assert gone.status_code == 204, gone.text
    told = upload(service.url, file)
    assert told["outcome"] == "uploaded"
    assert told["resumedAt"] is None
    assert is_stored(service, told, file)


def collide(service: Service, file: Path) -> None:
    """Have the service know another file with the id of this one, without a checksum that would tell them apart."""
    content = bytearray(file.read_bytes())
    content[5000] ^= 1  # which the id's sample leaves out
    other = service.upload("/media", bytes(content), name="other.mp4").json()["media"]["id"]
    with closing(sqlite3.connect(service.folder / "detections.db")) as database, database:
        database.execute("UPDATE media SET checksum = NULL WHERE id = ?", (other,))


def test_a_refusal_at_the_end_is_told_from_the_last_answer(service: Service, tmp_path: Path) -> None:
    file = video(tmp_path / "collision.mp4", 2 * MIB)
    collide(service, file)
    told = upload(service.url, file, exit_code=1)
    assert told["outcome"] == "failed"
    assert told["reason"].startswith("409: ")
    assert remembered(file) == []


def test_a_refusal_whose_answer_never_arrives_is_asked_for(service: Service, tmp_path: Path) -> None:
    file = video(tmp_path / "unheard.mp4", 2 * MIB)
    collide(service, file)
    with Proxy(port(service), (None, None, None, "answer lost")) as proxy:
        told = upload(proxy.url, file, exit_code=1)
        assert proxy.met == ["answer lost"]
    assert told["reason"].startswith("409: ")
    assert remembered(file) == []


def test_what_is_to_be_detected_and_how_goes_with_the_upload(service: Service, tmp_path: Path) -> None:
    file = video(tmp_path / "options.mp4", 2 * MIB)
    with CuttingProxy(port(service), (MIB,)) as proxy:
        options = ("--detect", "--confidence", "0.25", "--frame-interval", "2", "--rerun")
        upload(proxy.url, file, *options, "--attempts", "1", exit_code=1)
    [upload_id] = remembered(file)
    told = service.request("HEAD", f"/uploads/{upload_id}", headers={"Tus-Resumable": "1.0.0"})
    assert told.headers["Upload-Metadata"] == (
        "filename b3B0aW9ucy5tcDQ=,detect dHJ1ZQ==,confidence MC4yNQ==,frameInterval Mi4w,rerun dHJ1ZQ=="
    )
