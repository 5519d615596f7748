"""The receiver of docs/receiving.md, as it is written there, against the service: killed, restored, told again.

RECEIVER_ITEMS (default 6) is how many items it is told of.
"""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests

from tests.eventually import eventually
from tests.paths import ROOT
from tests.servers.ports import free_port
from tests.system.promise import Uploads, photo
from tests.system.service import SECRET, Service, surroundings

DOCUMENT = ROOT / "docs" / "receiving.md"
LINES = 40
SECONDS = 60
ITEMS = int(os.environ.get("RECEIVER_ITEMS", "6"))


class DocumentedReceiver:
    """The code of the document as a process of its own; `start` and `kill` as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "receiver.db"
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        [code] = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
        self.lines = [line for line in code.splitlines() if line.strip()]
        (folder / "receiver.py").write_text(code)

    def start(self) -> None:
        command = ["-m", "flask", "--app", "receiver", "run", "--port", self.url.rpartition(":")[2]]
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self._folder,
            env=surroundings() | {"RECEIVER_DATABASE": str(self.database), "JWT_SECRET_KEY": SECRET},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        eventually(self._answers, "the receiver")

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def statuses(self) -> dict[str, int]:
        with closing(sqlite3.connect(self.database)) as connection:
            return dict(connection.execute("SELECT id, status FROM media"))

    def forget(self, media_id: str) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("DELETE FROM media WHERE id = ?", [media_id])

    def _answers(self) -> bool:
        try:
            return requests.get(self.url, timeout=5).status_code == 401
        except requests.ConnectionError:
            return False


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[DocumentedReceiver]:
    receiver = DocumentedReceiver(tmp_path)
    receiver.start()
    yield receiver
    receiver.kill()


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str, receiver: DocumentedReceiver) -> Iterator[Service]:
    service = Service(tmp_path, sqlite_url, receiver.url)
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


def test_the_documented_receiver_is_right_through_kills_and_a_loss(
    service: Service, receiver: DocumentedReceiver
) -> None:
    assert len(receiver.lines) <= LINES
    uploads = Uploads()
    for number in range(ITEMS):
        uploads.send(service, "/detect", photo(number))
        if number % max(3, ITEMS // 20) == 1:
            receiver.kill()
            receiver.start()
    expected = dict.fromkeys(uploads.promised, 3)
    assert len(expected) == ITEMS
    eventually(lambda: receiver.statuses() == expected, "everything to arrive")
    lost = next(iter(expected))
    receiver.forget(lost)
    told = service.flask("outbox", "verify", "--remote")
    assert told.returncode == 5, told.stderr
    assert lost in told.stdout
    assert told.stderr.splitlines()[-1].endswith("flask outbox resend --missing")
    assert service.flask("outbox", "resend", "--missing").returncode == 0
    eventually(lambda: receiver.statuses() == expected, "the one that was lost")
    assert service.flask("outbox", "verify", "--remote").returncode == 0


def test_it_knows_the_sender_and_ignores_what_is_older_than_what_it_took(receiver: DocumentedReceiver) -> None:
    def send(method: str, target: str, seq: int, epoch: int = 1, **body: Any) -> int:
        claims = {"sub": "ada", "exp": int(time.time()) + 60, "act": {"sub": "detections"}}
        headers = {
            "Authorization": f"Bearer {jwt.encode(claims, SECRET)}",
            "Idempotency-Key": f"{epoch:08d}-0000-0000-0000-{seq:012d}",
            "X-Outbox-Seq": str(seq),
            "X-Outbox-Epoch": str(epoch),
        }
        return requests.request(method, receiver.url + target, headers=headers, json=body, timeout=10).status_code

    item: dict[str, Any] = {
        "id": "a" * 16,
        "name": "a.jpg",
        "path": "/a.jpg",
        "mediaType": "Image",
        "mediaStatus": 1,
        "userId": "ada",
    }
    status = f"/api/media/{'a' * 16}/status"
    assert send("PUT", status, 2, mediaStatus=2) == 404
    assert send("POST", "/api/media", 1, **item) == 204
    for seq, epoch, value, then in ((3, 1, 3, 3), (2, 1, 2, 3), (2, 2, 2, 2), (9, 1, 6, 2), (3, 2, 3, 3), (3, 2, 6, 3)):
        assert send("PUT", status, seq, epoch, mediaStatus=value) == 204
        assert receiver.statuses() == {"a" * 16: then}
    foreign = jwt.encode({"sub": "ada", "exp": int(time.time()) + 60}, SECRET)
    answer = requests.get(receiver.url, headers={"Authorization": f"Bearer {foreign}"}, timeout=10)
    assert answer.status_code == 403
