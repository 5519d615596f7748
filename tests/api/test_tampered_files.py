"""Stored files that somebody with access to the media folders has replaced."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.api.conftest import Api, picture

LATEST_SECONDS = 5.0


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def link_to_a_twin(path: Path) -> None:
    """Link to a file of the same size, so that only the link is the reason for the refusal."""
    twin = path.parent.parent / "elsewhere"
    twin.write_bytes(bytes(PICTURE_BYTES))
    path.symlink_to(twin)


def dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root may make devices")


def folder(path: Path) -> None:
    path.mkdir()


def longer(path: Path) -> None:
    path.write_bytes(picture(990) + b"behind")


def shorter(path: Path) -> None:
    path.write_bytes(picture(990)[:100])


def empty(path: Path) -> None:
    path.touch()


def nothing(path: Path) -> None:
    pass


PICTURE_BYTES = len(picture(901))
TAMPERINGS: list[tuple[Callable[[Path], None], str]] = [
    (link, "symbolic link"),
    (link_to_a_twin, "symbolic link"),
    (dangling_link, "symbolic link"),
    (pipe, "not a regular file"),
    (unix_socket, "cannot be read"),
    (device, "not a regular file"),
    (folder, "not a regular file"),
    (longer, "its record says"),
    (shorter, "has 100 bytes"),
    (empty, "has 0 bytes"),
    (nothing, "No such file"),
]


@pytest.mark.parametrize(("tamper", "reason"), TAMPERINGS, ids=[one.__name__ for one, _ in TAMPERINGS])
def test_what_is_not_the_stored_file_is_neither_read_nor_waited_for(
    tamper: Callable[[Path], None], reason: str, api: Api, request: pytest.FixtureRequest
) -> None:
    content = picture(1000 + [one for one, _ in TAMPERINGS].index(tamper))
    media_id = api.upload("/media", content).get_json()["media"]["id"]
    stored = api.images / f"{media_id}.jpg"
    stored.unlink()
    tamper(stored)
    begun = time.monotonic()
    asked_for: list[dict[str, str]] = [{}, {"Range": "bytes=0-9"}]
    with capture_logs() as logged:
        for headers in asked_for:
            with api.get(f"/media/{media_id}/content", headers=headers) as answer:
                assert answer.status_code == 500
                assert answer.get_json()["type"].endswith("storage-failed")
                assert reason in answer.get_json()["detail"]
    assert [one["event"] for one in logged if one["log_level"] != "info"] == ["request_failed"] * len(asked_for)
    if tamper not in (nothing, dangling_link):  # without its file there is nothing to compare the bytes with
        assert api.upload("/media", content).status_code == 500
    run = api.request("POST", f"/detect/{media_id}", headers={"Prefer": "respond-async"}).get_json()["media"]["run"]
    while run["waitingFor"] is None:  # the stored file may return, so no Error is sent meanwhile
        assert run["error"] is None
        assert time.monotonic() - begun < LATEST_SECONDS
        time.sleep(0.02)
        run = api.get(f"/media/{media_id}").get_json()["run"]
    assert ("is missing" if tamper is nothing else reason) in run["waitingFor"]
    assert api.request("DELETE", f"/media/{media_id}/run").status_code == 204


def test_a_download_goes_on_with_the_file_that_it_began_with(api: Api) -> None:
    content = picture(950, (320, 240), "PNG")
    media_id = api.upload("/media", content, "photo.png").get_json()["media"]["id"]
    with api.get(f"/media/{media_id}/content", buffered=False) as answer:
        stored = api.images / f"{media_id}.png"
        stored.unlink()
        stored.write_bytes(bytes(len(content)))
        assert answer.get_data() == content
