"""Rows 32 and 33: one user's long videos beside another's photo, and pictures that are not stored beside memory.

SHARES_SECONDS (default 12) is about how long each of the two videos takes; SHARES_PICTURES (default 4) is how many
pictures of 16 MiB are held back at their last byte, of 64 MiB where it is 12 or more.
"""

import http.client
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.detection.clips import Clip
from tests.paths import PHOTOS
from tests.system.service import Service, token

pytestmark = pytest.mark.alone

SECONDS = int(os.environ.get("SHARES_SECONDS", "12"))
PICTURES = int(os.environ.get("SHARES_PICTURES", "4"))
PICTURE_BYTES = (64 if PICTURES >= 12 else 16) << 20
FRAMES_A_SECOND = 25
ASTRONAUT = PHOTOS / "astronaut.jpg"
CHELSEA = ASTRONAUT.with_name("chelsea.jpg")


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    service = Service(tmp_path, sqlite_url, None, DETECTION_WORKERS="1")
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


@pytest.mark.timeout(120 + 4 * SECONDS)
def test_a_photo_is_answered_while_another_user_s_long_videos_are_under_way(service: Service, tmp_path: Path) -> None:
    photo = Image.open(ASTRONAUT).convert("RGB")
    videos = []
    for number in range(2):
        clip = Clip(f"{number}.mp4", frames=SECONDS * FRAMES_A_SECOND, rate=FRAMES_A_SECOND, width=320 + 16 * number)
        answer = service.upload(
            "/detect?frameInterval=0.04", clip.write(tmp_path, photo), headers={"Prefer": "respond-async"}
        )
        videos.append(answer.json()["media"]["id"])

    def states() -> list[str]:
        return [service.request("GET", f"/media/{video}").json()["run"]["state"] for video in videos]

    while "running" not in states():
        time.sleep(0.05)
    time.sleep(1)
    waits = []
    for path, file in (("/detect", ASTRONAUT), ("/detect?persist=false", CHELSEA), ("/detect?rerun=true", ASTRONAUT)):
        began = time.monotonic()
        answer = service.upload(path, file, user="somebody else")
        waits.append(time.monotonic() - began)
        assert answer.status_code in (200, 201), answer.text
        assert "done" not in states()
    print("photos beside two long videos answered in " + ", ".join(f"{wait:.2f} s" for wait in waits))
    deleted = [service.request("DELETE", f"/media/{video}/run").status_code for video in videos]
    assert deleted == [204, 204]
    assert states() == ["failed", "failed"]


def resident_bytes(service: Service) -> int:
    assert service.process is not None
    pid = service.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = max(int(Path(f"/proc/{child}/statm").read_text().split()[1]) for child in children)
    return pages * os.sysconf("SC_PAGESIZE")


@pytest.mark.long
def test_pictures_that_are_not_stored_lie_in_no_memory_and_leave_no_file(service: Service) -> None:
    service.upload("/detect?persist=false", CHELSEA)
    before = resident_bytes(service)
    address = urlsplit(service.url)
    piece = b"\xff\xd8\xff\xe0" + bytes(PICTURE_BYTES - 5)
    clients = []
    for number in range(PICTURES):
        client = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        client.putrequest("POST", "/detect?persist=false&name=large.jpg")
        client.putheader("Authorization", f"Bearer {token(f'user {number}')}")
        client.putheader("Content-Type", "image/jpeg")
        client.putheader("Content-Length", str(PICTURE_BYTES))
        client.endheaders()
        client.send(piece)
        clients.append(client)
    time.sleep(1)
    grown = resident_bytes(service) - before
    print(f"{PICTURES} pictures of {PICTURE_BYTES >> 20} MiB: the server grew by {grown / (1 << 20):.1f} MiB")
    assert grown < min(256 << 20, PICTURES * PICTURE_BYTES // 4)
    assert service.leftovers() == []
    for client in clients:
        client.send(b"\0")
    assert {client.getresponse().status for client in clients} <= {422, 503}
    for client in clients:
        client.close()
    assert service.stored() == set()
    assert service.leftovers() == []
