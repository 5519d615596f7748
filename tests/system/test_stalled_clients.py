"""Two hundred clients that stop inside their uploads: as many as there are slots are waited for, and not for long.

Row 5 of docs/reliability.md, with the real application; clients that stop inside the head are in
tests/web/server/test_idle_clients.py.
"""

import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.long import later
from tests.system.service import Service, token
from tests.web.raw_client import RawClient
from tests.web.upload.framings import FRAMINGS

pytestmark = pytest.mark.alone

CLIENTS = 200
SLOTS = 14  # of gunicorn.conf.py's sixteen threads
IDLE_SECONDS = 3.0
PHOTO = b"\xff\xd8\xff\xe0" + bytes(100_000)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("stalled")
    shutil.copy(sqlite_template, folder / "detections.db")
    url = f"sqlite:///{folder / 'detections.db'}"
    service = Service(folder, url, None, UPLOAD_IDLE_TIMEOUT_SECONDS=str(IDLE_SECONDS), DETECTION="off")
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


@pytest.fixture
def clients(service: Service) -> Iterator[list[RawClient]]:
    host, _, port = service.url.removeprefix("http://").partition(":")
    with ExitStack() as stack:
        yield [
            stack.enter_context(RawClient(socket.create_connection((host, int(port)), timeout=30)))
            for _ in range(CLIENTS)
        ]


def upload(number: int, bearer: str, path: bytes = b"/media") -> bytes:
    """A request that stops in the middle of its body; each framing in turn."""
    framing = list(FRAMINGS.values())[number % len(FRAMINGS)]
    authorization = f"Authorization: Bearer {bearer}\r\n".encode()
    return framing.head(PHOTO, token=authorization, path=path) + framing.body(PHOTO)[:50_000]


def slowest_health(service: Service, seconds: float) -> float:
    """The longest that `/healthz` took within so many seconds."""
    slowest, ends = 0.0, time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.monotonic()
        assert service.request("GET", "/healthz").status_code == 200
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.1)
    return slowest


def statuses(clients: list[RawClient]) -> list[int]:
    """Of the answer that each got; every connection has been closed behind it."""
    found = []
    for client in clients:
        found.append(client.answer().status)
        assert client.everything() == b""
    return found


def test_of_two_hundred_stalled_uploads_as_many_as_slots_time_out_and_the_rest_is_refused(
    service: Service, clients: list[RawClient]
) -> None:
    began = time.monotonic()
    for number, client in enumerate(clients):
        client.send(upload(number, token(f"user {number}")))
    assert slowest_health(service, IDLE_SECONDS - 1) < 1
    found = statuses(clients)
    assert time.monotonic() - began < IDLE_SECONDS + 5
    assert SLOTS <= found.count(408) < 2 * SLOTS  # a late one may find the slot of one that was given up
    assert found.count(408) + found.count(503) == CLIENTS
    assert service.leftovers() == []
    assert service.upload("/media", PHOTO).status_code == 201


REFUSED: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "bad token": (401, lambda number: upload(number, "bad")),
    "too large": (
        413,
        lambda number: re.sub(
            rb"(Content-Length: |Transfer-Encoding: chunked)\d*",
            b"Content-Length: 99999999999999",
            upload(number, token()),
        ),
    ),
    "no such route": (404, lambda number: upload(number, token(), b"/nowhere")),
}


@pytest.mark.parametrize("cause", later([*REFUSED][:1], *[*REFUSED][1:]))
def test_two_hundred_refused_uploads_that_stay_keep_nobody_waiting(
    service: Service, clients: list[RawClient], cause: str
) -> None:
    status, request = REFUSED[cause]
    began = time.monotonic()
    for number, client in enumerate(clients):
        client.send(request(number))
    assert slowest_health(service, 1) < 1
    assert set(statuses(clients)) == {status}
    assert time.monotonic() - began < IDLE_SECONDS + 5


def test_one_user_s_stalled_uploads_leave_slots_for_the_others(service: Service, clients: list[RawClient]) -> None:
    for number, client in enumerate(clients[:50]):
        client.send(upload(number, token("mallory")))
    assert slowest_health(service, 0.5) < 1
    assert service.upload("/media", PHOTO + b" of ada", user="ada").status_code == 201
    found = statuses(clients[:50])
    assert found.count(408) < SLOTS
    assert found.count(503) == 50 - found.count(408)
