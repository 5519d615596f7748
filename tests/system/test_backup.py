"""The procedure of docs/operations.md, done as it is written there: a copy taken while uploads run, then a loss.

The database is copied first, the files after it. Files are never changed and never removed, so whatever the copied rows
name is among the files that are copied later; those that came between have no row, and the next upload adopts them.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.media.hashing import media_id_of_bytes
from tests.eventually import eventually
from tests.reference.service import ReferenceService
from tests.system.promise import Uploads, photo
from tests.system.service import Service

BEFORE, AFTER = 5, 5
EVERY_NTH_IS_DETECTED = 4
COPY_DATABASE = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', sys.argv[2:])"
COPY_FILES = 'find "$1" -maxdepth 1 -type f -exec cp -p -t "$2" {} +'


def copy_database(source: Path, target: Path) -> None:
    subprocess.run([sys.executable, "-c", COPY_DATABASE, str(source), str(target)], check=True, capture_output=True)


def copy_files(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    subprocess.run(["sh", "-c", COPY_FILES, "sh", str(source), str(target)], check=True, capture_output=True)


def path_for(number: int) -> str:
    return "/detect" if number % EVERY_NTH_IS_DETECTED == 0 else "/media"


def wait_until(uploads: Uploads, number: int) -> None:
    eventually(lambda: len(uploads.promised) >= number, "the uploads to come on", seconds=60)


def back_up_while_uploading(service: Service, backup: Path) -> Uploads:
    """Copies database and files in the middle of uploads; what they were promised."""
    uploads, numbers, over = Uploads(), count(), threading.Event()

    def upload() -> None:
        while not over.is_set():
            number = next(numbers)
            uploads.send(service, path_for(number), photo(number))

    clients = [threading.Thread(target=upload) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        wait_until(uploads, BEFORE)
        copy_database(service.folder / "detections.db", backup / "detections.db")
        wait_until(uploads, len(uploads.promised) + AFTER)
        copy_files(service.images, backup / "images")
        copy_files(service.videos, backup / "videos")
        wait_until(uploads, len(uploads.promised) + AFTER)
    finally:
        over.set()
        for client in clients:
            client.join()
    return uploads


def lose_everything_and_restore(service: Service, backup: Path) -> None:
    for path in service.folder.glob("detections.db*"):
        path.unlink()
    for folder in (service.images, service.videos):
        shutil.rmtree(folder)
    shutil.copy(backup / "detections.db", service.folder)
    for folder in (service.images, service.videos):
        shutil.copytree(backup / folder.name, folder)
    with closing(sqlite3.connect(service.folder / "detections.db")) as restored, restored:
        # A restore comes hours after its copy, so the leases in it have run out; the test does not wait for that.
        restored.execute("UPDATE detection_run SET lease_until = lease_until - 3600")


def told(service: Service, *arguments: str) -> Any:
    """What a command says, which must end with exit code 0: drained, or no invariant broken, or no difference found."""
    ended = service.flask(*arguments, "--json", timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_copy_taken_during_uploads_is_whole_and_can_be_gone_on_with(
    service: Service, annotations: ReferenceService, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    uploads = back_up_while_uploading(service, backup)
    service.kill()
    lose_everything_and_restore(service, backup)
    told(service, "media", "accept-folders")
    told(service, "media", "recover")
    told(service, "outbox", "flush", "--wait", "--timeout", "60")
    told(service, "outbox", "verify")
    recorded = told(service, "media", "list", "--limit", "10000")
    known = {record["id"] for record in recorded}
    assert len(known) >= BEFORE
    for record in recorded:
        content = next(service.images.glob(f"{record['id']}.*")).read_bytes()
        assert media_id_of_bytes(content) == record["id"]
        assert record["mediaStatus"] in (1, 3)
        assert record["delivery"]["pending"] == 0
    assert_what_came_after_the_copy_can_come_again(service, uploads, known)
    told(service, "outbox", "flush", "--wait", "--timeout", "60")
    told(service, "outbox", "verify", "--remote")


def assert_what_came_after_the_copy_can_come_again(service: Service, uploads: Uploads, known: set[str]) -> None:
    lost = uploads.promised.keys() - known
    assert len(lost) >= AFTER
    orphans = {path.stem for path in service.images.iterdir() if path.is_file()} - known
    assert orphans & lost, "no file was copied that came after its database"
    service.start()
    paths = {media_id_of_bytes(photo(number)): path_for(number) for number in range(len(uploads.promised) + 10)}
    for media_id in lost:
        answer = service.upload(paths[media_id], uploads.promised[media_id], name="photo.png")
        assert answer.status_code == 201
        assert answer.json()["media"]["id"] == media_id
