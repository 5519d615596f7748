"""Resumable uploads against real gunicorn: links that break, clients that come back, servers that are killed."""

import base64
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from tusclient.client import TusClient

from app.media.hashing import media_id_of_bytes
from tests.servers.cutting_proxy import CuttingProxy
from tests.servers.nginx import Nginx
from tests.servers.ports import free_port
from tests.system.service import Service, shared_service, token

MIB = 1 << 20
KILLS = int(os.environ.get("UPLOAD_KILLS", "1"))
SPOKEN = {"Tus-Resumable": "1.0.0"}
PART = {"Content-Type": "application/offset+octet-stream"}
SAID = f"filename {base64.b64encode(b'clip.mp4').decode()},detect ZmFsc2U="


def clip(size: int) -> bytes:
    """Bytes that begin as an MP4 does."""
    return b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41" + os.urandom(size - 24)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    shutil.copy(sqlite_template, folder / "detections.db")
    url = f"sqlite:///{folder}/detections.db"
    service = Service(folder, url, None, DETECTION="off", WEB_CONCURRENCY="2")
    try:
        yield service.start()
    finally:
        service.stop()
        service.kill()


def create(service: Service, length: int) -> str:
    fields = SPOKEN | {"Upload-Length": str(length), "Upload-Metadata": SAID}
    created = service.request("POST", "/uploads", headers=fields)
    assert created.status_code == 201, created.text
    return created.headers["Location"]


def patch(service: Service, address: str, offset: int, body: Any, **fields: str) -> requests.Response:
    told = SPOKEN | PART | {"Upload-Offset": str(offset)} | fields
    return service.request("PATCH", address, headers=told, data=body)


def offset_of(service: Service, address: str) -> int:
    return int(service.request("HEAD", address, headers=SPOKEN).headers["Upload-Offset"])


def begin_part(service: Service, address: str, offset: int, length: int, body: bytes) -> socket.socket:
    """Send the head of a part and the first bytes of its body, and leave the connection open."""
    connection = socket.create_connection(("127.0.0.1", port_of(service.url)))
    head = (
        f"PATCH {address} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token()}\r\n"
        f"Tus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\nContent-Length: {length}\r\n"
        "Content-Type: application/offset+octet-stream\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def assert_whole(service: Service, content: bytes) -> None:
    [stored] = [path for path in service.videos.iterdir() if path.stem == media_id_of_bytes(content)]
    assert stored.read_bytes() == content


def test_bytes_that_came_before_the_link_broke_count_however_few(service: Service) -> None:
    content = clip(3 * MIB)
    address, sent = create(service, len(content)), 0
    for more in (1, 25, 70_000, MIB):
        with begin_part(service, address, sent, len(content) - sent, content[sent : sent + more]) as link:
            link.shutdown(socket.SHUT_WR)
            link.recv(1)  # the server has noticed
        sent += more
        assert offset_of(service, address) == sent
    assert patch(service, address, sent, content[sent:]).status_code == 204
    assert_whole(service, content)


def test_a_client_whose_link_died_goes_on_within_five_seconds(service: Service) -> None:
    """Its old connection is still open, and silent: as a wireless link leaves it."""
    content = clip(2 * MIB)
    address = create(service, len(content))
    with begin_part(service, address, 0, len(content), content[:MIB]) as dead:
        time.sleep(0.2)
        began = time.monotonic()
        offset = offset_of(service, address)
        assert offset == MIB
        assert patch(service, address, offset, content[offset:]).status_code == 204
        assert time.monotonic() - began < 5
        assert b" 423 " in dead.recv(100)
    assert_whole(service, content)


def test_a_new_part_takes_over_without_asking_first_and_is_told_the_right_offset(service: Service) -> None:
    content = clip(MIB)
    address = create(service, len(content))
    with begin_part(service, address, 0, len(content), content[:1000]):
        time.sleep(0.2)
        refused = patch(service, address, 0, content)
        assert refused.status_code == 409
        assert refused.headers["Upload-Offset"] == "1000"
    assert patch(service, address, 1000, content[1000:]).status_code == 204
    assert_whole(service, content)


def test_thirty_pauses_within_a_second_lose_nothing(service: Service) -> None:
    content = clip(2 * MIB)
    address, sent = create(service, len(content)), 0
    for _ in range(30):
        offset = offset_of(service, address)
        assert offset >= sent
        sent = offset
        begin_part(service, address, sent, len(content) - sent, content[sent : sent + 10_000]).close()
    status = 0
    while status != 204:  # the last of those parts may still be on its way
        offset = offset_of(service, address)
        status = patch(service, address, offset, content[offset:]).status_code
        assert status in (204, 409, 423)
    assert_whole(service, content)


def test_an_app_that_sleeps_in_the_middle_of_a_part_goes_on_from_there(tmp_path: Path, sqlite_template: Path) -> None:
    content = clip(MIB)
    with shared_service(tmp_path, sqlite_template, DETECTION="off", UPLOAD_IDLE_TIMEOUT_SECONDS="1") as service:
        address = create(service, len(content))
        with begin_part(service, address, 0, len(content), content[:1000]) as asleep:
            assert b" 408 " in asleep.recv(100)
        state = service.request("GET", address).json()
        assert state["state"] == "receiving"
        assert state["offset"] == 1000
        assert patch(service, address, 1000, content[1000:]).status_code == 204
        assert_whole(service, content)


def test_two_clients_of_one_upload_never_mix_their_bytes(service: Service) -> None:
    content = clip(2 * MIB)
    address = create(service, len(content))
    answers = list[int]()

    def send() -> None:
        while True:
            state = service.request("GET", address).json()
            if state["state"] == "complete":
                return
            begin = state["offset"]
            answer = patch(service, address, begin, content[begin : begin + 300_000])
            answers.append(answer.status_code)

    clients = [threading.Thread(target=send) for _ in range(3)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    assert set(answers) <= {204, 409, 423}
    assert_whole(service, content)


def test_tuspy_survives_a_link_that_is_cut_every_few_mebibytes(service: Service, tmp_path: Path) -> None:
    content = clip(12 * MIB)
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    cuts = [2 * MIB * number for number in range(1, 5)]
    with CuttingProxy(port_of(service.url), cuts) as proxy, file.open("rb") as stream:
        client = TusClient(f"{proxy.url}/uploads", headers={"Authorization": f"Bearer {token()}"})
        said = {"filename": "clip.mp4", "detect": "false"}
        client.uploader(file_stream=stream, chunk_size=4 * MIB, metadata=said, retries=20, retry_delay=0.05).upload()
        assert proxy.cuts == []
        assert proxy.passed < len(content) + 4 * MIB  # nothing again but what was on its way when the link broke
    assert_whole(service, content)


def test_a_proxy_that_takes_no_body_of_a_hundred_megabytes_and_buffers_each_part_lets_tuspy_through(
    service: Service, tmp_path: Path
) -> None:
    content = clip(MIB) + bytes(104 * MIB)
    file, port = tmp_path / "clip.mp4", free_port()
    file.write_bytes(content)
    server = f"""
        server {{
            listen 127.0.0.1:{port};
            client_max_body_size 100m;
            location / {{ proxy_pass {service.url}; proxy_http_version 1.1; }}
        }}
    """
    with Nginx(tmp_path, server, port), file.open("rb") as stream:
        bearer = {"Authorization": f"Bearer {token()}"}
        client = TusClient(f"http://127.0.0.1:{port}/uploads", headers=bearer)
        said = {"filename": "clip.mp4", "detect": "false"}
        client.uploader(file_stream=stream, chunk_size=64 * MIB, metadata=said).upload()
    assert_whole(service, content)


def test_a_kill_loses_no_byte_that_was_acknowledged_and_the_client_goes_on(service: Service) -> None:
    size = 100_000
    content = clip((KILLS + 2) * size)
    address, acknowledged = create(service, len(content)), 0
    for _ in range(KILLS):
        end = acknowledged + size
        assert patch(service, address, acknowledged, content[acknowledged:end]).status_code == 204
        with begin_part(service, address, end, len(content) - end, content[end : end + 5000]):
            service.kill()
        service.start()
        acknowledged = offset_of(service, address)
        assert acknowledged >= end
    assert patch(service, address, acknowledged, content[acknowledged:]).status_code == 204
    assert_whole(service, content)
    assert not [path for path in service.leftovers() if str(len(content)) in path.name]
