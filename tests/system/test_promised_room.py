"""Room that an upload in one server process has declared is not promised again by another one."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.service import Service, token
from tests.web.raw_client import RawClient

HEAD = (
    "POST /media?name=flight.mp4 HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {token}\r\n"
    "Content-Type: video/mp4\r\nContent-Length: {length}\r\n\r\n"
)
MP4_HEAD = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2"


@pytest.fixture
def two(tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    """A service of two workers that takes files of any size."""
    service = Service(tmp_path, sqlite_url, None, MAX_UPLOAD_BYTES=str(1 << 50), DETECTION="off")
    try:
        yield service.start("--workers", "2")
    finally:
        service.stop()
        service.kill()


def connect(service: Service) -> socket.socket:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_an_upload_is_refused_unread_in_every_process_where_another_one_has_promised_the_room(two: Service) -> None:
    share = shutil.disk_usage(two.folder).free * 6 // 10
    head = HEAD.format(token=token(), length=share).encode()
    with RawClient(connect(two)) as first:
        first.send(head + MP4_HEAD)
        while not two.leftovers():
            pass
        for _time in range(12):  # whichever process takes the connection
            with RawClient(connect(two)) as second:
                second.send(head)
                answer = second.answer()
                assert answer.status == 507, answer
        first.end()
        assert first.answer().status == 400
    assert two.leftovers() == []
    with RawClient(connect(two)) as third:
        third.send(head + MP4_HEAD)
        while not two.leftovers():
            pass
