"""Row 31: crowds that read a few kB/s, without a token and with one, directly and through nginx as documented.

Each crowd of 24 goes on for SLOW_READERS_SECONDS (default 2); where that is more than 28, its clients begin again every
28 s. Meanwhile `/healthz` answers within a second, and another user's uploads come in.
"""

import itertools
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from sqlalchemy import insert

from app.database.models import Media
from app.detection.results import DetectedObject, FrameResult
from app.runs.lifecycle import RunRequest
from tests.api.conftest import Api, picture, settings_in
from tests.long import later
from tests.system.service import Service
from tests.system.test_deploy_nginx import LARGEST, NAME, OPERATOR, Proxied, behind_nginx, request
from tests.web.raw_client import RawClient, slow_connection

SECONDS = float(os.environ.get("SLOW_READERS_SECONDS", "2"))
AGAIN_SECONDS = 28.0
READERS = 24
LISTED = 500
FOUND = DetectedObject(0, "person", 0.9, 0.5, 0.5, 0.25, 0.25)

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120 + 4 * SECONDS)]


@dataclass
class Served:
    """A running service with a long list, a long result and a large file, and nginx before it."""

    service: Service
    proxied: Proxied
    media_id: str
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    @property
    def with_token(self) -> list[bytes]:
        """What a user may read for long."""
        path = f"/media/{self.media_id}".encode()
        return [b"GET /media?limit=%d" % LISTED, b"GET " + path + b"/detections", b"GET " + path + b"/content"]

    def upload(self) -> requests.Response:
        """A photo of another user's."""
        content, kind = picture(next(self.numbers)), {"Content-Type": "image/jpeg"}
        return self.service.request("POST", "/media?name=a.jpg", "bob", data=content, headers=kind)

    def directly(self) -> RawClient:
        return RawClient(slow_connection(int(self.service.url.rpartition(":")[2])))

    def through_nginx(self) -> RawClient:
        plain = slow_connection(self.proxied.port, address="127.0.0.4")
        context = ssl.create_default_context(cafile=str(self.proxied.trust))
        return RawClient(context.wrap_socket(plain, server_hostname=NAME))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("slow")
    media_id = fill(folder, sqlite_template)
    with behind_nginx(folder) as proxied:
        yield Served(proxied.service, proxied, media_id)


def fill(folder: Path, template: Path) -> str:
    """Store what is read: the id of an item with a file of 2 MB and a result of 3 MB, in a list of 500."""
    with closing(Api(settings_in(folder, template, None, {"DETECTION": "off"}))) as api:
        content = picture(1) + bytes(2_000_000)
        media_id: str = api.send_raw("/media?name=a.jpg", content).get_json()["media"]["id"]
        runs = api.services.runs
        runs.start_new(media_id, RunRequest(user_id="ada", confidence=0.45, frame_interval=0.5))
        claimed = runs.claim("a worker")
        assert claimed is not None
        assert runs.finish(claimed, [FrameResult(number, number / 2, (FOUND,) * 10) for number in range(2_000)])
        with api.services.database.write_transaction() as session:
            session.execute(insert(Media), [row(folder, number) for number in range(LISTED)])
    return media_id


def row(folder: Path, number: int) -> dict[str, object]:
    return {
        "id": f"{number:016x}",
        "name": "x" * 200 + ".jpg",
        "path": str(folder / "images" / f"{number:016x}.jpg"),
        "media_type": "Image",
        "media_status": 1,
        "user_id": "ada",
        "size_bytes": 1,
        "created_at": 4e9 + number,
    }


@contextmanager
def crowd(connect: Callable[[], RawClient], lines: list[bytes]) -> Iterator[None]:
    """Clients that ask for these, and read a few kB/s while the block runs."""
    over = threading.Event()
    clients: list[RawClient] = []

    def join() -> None:
        for client in clients:
            client.sock.close()
        clients.clear()
        for _, line in zip(range(READERS), itertools.cycle(lines), strict=False):
            client = connect()
            clients.append(client)
            client.send(request(line))
            client.sock.setblocking(False)

    def read_on() -> None:
        joined = time.monotonic()
        while not over.wait(0.3):
            if time.monotonic() - joined >= AGAIN_SECONDS:
                join()
                joined = time.monotonic()
            for client in clients:
                with suppress(OSError):  # nothing there, or cut off
                    client.sock.recv(1000)

    join()
    thread = threading.Thread(target=read_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)
        for client in clients:
            client.sock.close()


@pytest.mark.parametrize("with_token", [False, True], ids=["without a token", "with a token"])
@pytest.mark.parametrize("through_nginx", later([False], True), ids=["directly", "through nginx"])
def test_a_crowd_that_reads_slowly_keeps_nobody_else_from_being_served(
    served: Served, with_token: bool, through_nginx: bool
) -> None:
    lines = served.with_token if with_token else [LARGEST]
    health, proxied, uploads = [], [], []
    with crowd(served.through_nginx if through_nginx else served.directly, lines):
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            health.append(seconds_of(lambda: served.service.request("GET", "/healthz").ok))
            proxied.append(seconds_of(lambda: served.proxied.ask(b"GET /healthz", OPERATOR).status == 200))
            uploads.append(seconds_of(lambda: served.upload().status_code == 201))
            time.sleep(0.05)
    print(f"healthz {max(health):.3f} s, through nginx {max(proxied):.3f} s; upload {max(uploads):.3f} s")
    if SECONDS > AGAIN_SECONDS:
        assert max(health) < 1
    # A machine that is busy with other tests holds up one; a server without a thread holds up all that follow.
    assert max(min(two) for two in itertools.pairwise([*health, health[-1]])) < 1
    assert max(min(two) for two in itertools.pairwise([*uploads, uploads[-1]])) < 5


def seconds_of(succeeds: Callable[[], bool]) -> float:
    began = time.monotonic()
    assert succeeds()
    return time.monotonic() - began


def test_a_reader_that_is_slow_gets_all_of_it(served: Served) -> None:
    with served.directly() as client:
        client.send(request(LARGEST))
        time.sleep(0.5)
        assert len(client.answer().body) > 1_000_000
