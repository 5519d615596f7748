"""`flask media upload` against the service under gunicorn, through a network that breaks; run as on a laptop: without
any setting of the service."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app import create_command_app
from tests import fork_server
from tests.cli.terminal import COMMAND, on_terminal, piped
from tests.eventually import eventually
from tests.paths import ROOT
from tests.system.promise import photo
from tests.system.proxy import BUSY, Fault, Proxy
from tests.system.service import Service, shared_service, surroundings, token

MIB = 1 << 20
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    with shared_service(tmp_path_factory.mktemp("service"), sqlite_template) as service:
        yield service


def environment(service: Service, proxy: Proxy | None = None, **more: str) -> dict[str, str]:
    url = proxy.url if proxy else service.url
    state = str(service.folder / "state")
    ours = {"DETECTIONS_URL": url, "DETECTIONS_TOKEN": token(), "XDG_STATE_HOME": state}
    return ours | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | more


@contextmanager
def network(service: Service, *plan: Fault | None) -> Iterator[Proxy]:
    """A way to the service on which each request meets the next fault."""
    with Proxy(int(service.url.rpartition(":")[2]), plan) as proxy:
        yield proxy


def photos(folder: Path, *numbers: int) -> list[str]:
    paths = [folder / f"{number}.png" for number in numbers]
    for path, number in zip(paths, numbers, strict=True):
        path.write_bytes(photo(number))
    return [str(path) for path in paths]


def video(path: Path, size: int) -> str:
    """A file that begins like a video, and is a hole on the disk from there on."""
    path.write_bytes(MP4 + path.name.encode())
    os.truncate(path, size)
    return str(path)


def documents(*arguments: str, environment: dict[str, str], exit_code: int = 0) -> list[Any]:
    """What the command says with --json; in this process, because starting another takes most of the time."""
    runner = create_command_app().test_cli_runner()
    ended = runner.invoke(args=["media", "upload", "--json", *arguments], env=environment)
    assert ended.exit_code == exit_code, (ended.stderr, ended.exception)
    told: list[Any] = json.loads(ended.stdout)
    return told


def outcomes(told: list[Any]) -> list[str]:
    return [document["outcome"] for document in told]


def test_files_are_uploaded_and_detected_and_not_sent_again(service: Service, tmp_path: Path) -> None:
    files = photos(tmp_path, 1, 2)
    first = piped("media", "upload", *files, environment=environment(service))
    assert first.returncode == 0
    assert first.stderr == ""
    lines = first.stdout.splitlines()
    ids = [line.split()[0] for line in lines]
    assert [line.split()[1] for line in lines] == ["uploaded", "uploaded"]
    assert all(service.request("GET", f"/media/{media_id}").json()["run"] for media_id in ids)
    posts = service.log.read_text().count('"method": "POST"')
    assert outcomes(documents(*files, environment=environment(service))) == ["already there"] * 2
    assert service.log.read_text().count('"method": "POST"') == posts


def test_what_was_only_stored_is_detected_later_without_being_sent_again(service: Service, tmp_path: Path) -> None:
    files = photos(tmp_path, 3)
    [stored] = documents("--no-detect", *files, environment=environment(service))
    assert service.request("GET", f"/media/{stored['id']}").json()["run"] is None
    assert outcomes(documents(*files, environment=environment(service))) == ["already there"]
    assert service.request("GET", f"/media/{stored['id']}").json()["run"] is not None


@pytest.mark.parametrize(
    ("plan", "number"),
    [
        ((None, "reset midway"), 10),
        ((None, "stall midway"), 11),
        ((None, BUSY), 12),
        (("reset", "half an answer"), 13),
        ((None, "answer lost"), 14),
    ],
    ids=str,
)
def test_a_broken_network_is_tried_again_until_the_file_is_there(
    service: Service, tmp_path: Path, plan: tuple[Fault | None, ...], number: int
) -> None:
    file = tmp_path / f"{number}.mp4"
    with network(service, *plan) as proxy:
        began = time.monotonic()
        [told] = documents(
            "--no-detect", "--timeout", "2", video(file, 4 * MIB), environment=environment(service, proxy)
        )
        assert proxy.met == [fault for fault in plan if fault]
    assert told["outcome"] == ("already there" if "answer lost" in plan else "uploaded")
    if BUSY in plan:
        assert time.monotonic() - began >= 1  # as the answer asked
    stored = service.videos / f"{told['id']}.mp4"
    assert stored.read_bytes() == file.read_bytes()


def test_after_the_last_try_the_reason_is_told(service: Service, tmp_path: Path) -> None:
    files = [video(tmp_path / "never.mp4", MIB), *photos(tmp_path, 4)]
    with network(service, None, "reset midway", None, "reset midway") as proxy:
        told = documents("--no-detect", "--attempts", "2", *files, environment=environment(service, proxy), exit_code=1)
    assert outcomes(told) == ["failed", "uploaded"]
    assert told[0]["reason"]


def test_a_wrong_token_ends_the_list_at_once(service: Service, tmp_path: Path) -> None:
    files = photos(tmp_path, 5, 6)
    ended = piped("media", "upload", *files, environment=environment(service, DETECTIONS_TOKEN=token(exp=1)))
    assert ended.returncode == 1
    assert "401" in ended.stdout
    assert "not attempted" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_nobody_at_the_address_ends_the_list(service: Service, tmp_path: Path) -> None:
    files = photos(tmp_path, 7, 8)
    nowhere = environment(service, DETECTIONS_URL="http://127.0.0.1:1")
    told = documents("--attempts", "2", *files, environment=nowhere, exit_code=1)
    assert outcomes(told) == ["failed", "not attempted"]
    assert "refused" in told[0]["reason"]


def test_a_list_that_was_stopped_goes_on_where_it_was(service: Service, tmp_path: Path) -> None:
    files = [*photos(tmp_path, 20), video(tmp_path / "20.mp4", 4 * MIB), *photos(tmp_path, 21)]
    with (
        network(service, None, None, None, "stall midway") as proxy,
        fork_server.Popen(
            [*COMMAND, "media", "upload", "--no-detect", *files],
            cwd=ROOT,
            env=surroundings() | environment(service, proxy) | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert "uploaded" in process.stdout.readline()
            eventually(lambda: bool(proxy.met), "the second file")
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "Run the same command to continue" in told
    assert told.count("not attempted") == 2
    again = documents("--no-detect", *files, environment=environment(service))
    assert outcomes(again) == ["already there", "uploaded", "uploaded"]


def test_other_content_under_the_same_id_is_told_without_being_sent(service: Service, tmp_path: Path) -> None:
    one = Path(video(tmp_path / "one.mp4", 4 * MIB))
    [told] = documents("--no-detect", str(one), environment=environment(service))
    other = tmp_path / "other.mp4"
    content = bytearray(one.read_bytes())
    content[5000] = 1  # which the sample leaves out
    other.write_bytes(content)
    posts = service.log.read_text().count('"method": "POST"')
    [refused] = documents("--no-detect", str(other), environment=environment(service), exit_code=1)
    assert refused["id"] == told["id"]
    assert refused["outcome"] == "failed"
    assert "another file" in refused["reason"]
    assert service.log.read_text().count('"method": "POST"') == posts


def test_a_media_without_a_checksum_is_sent_and_compared_by_the_service(service: Service, tmp_path: Path) -> None:
    files = photos(tmp_path, 30)
    [told] = documents("--no-detect", *files, environment=environment(service))
    forget_checksum(service, told["id"])
    assert outcomes(documents("--no-detect", *files, environment=environment(service))) == ["duplicate"]


def forget_checksum(service: Service, media_id: str) -> None:
    with sqlite3.connect(service.folder / "detections.db") as other:
        other.execute("UPDATE media SET checksum = NULL WHERE id = ?", (media_id,))
    other.close()


def test_a_folder_is_taken_with_what_is_below_it(service: Service, tmp_path: Path) -> None:
    (tmp_path / "card" / "DCIM").mkdir(parents=True)
    photos(tmp_path / "card", 40)
    photos(tmp_path / "card" / "DCIM", 41)
    (tmp_path / "card" / "index.txt").write_text("no media")
    (tmp_path / "card" / "._40.png").write_text("what a computer left there")
    ended = piped("media", "upload", "-r", str(tmp_path / "card"), environment=environment(service))
    assert ended.returncode == 0
    assert [Path(line.split()[-1]).name for line in ended.stdout.splitlines()] == ["40.png", "41.png"]
    assert "1 files with other extensions are skipped" in ended.stderr


NAMES: list[str | bytes] = [
    'quote"s and; semicolons.png',
    "two\nlines.png",
    "größe 測試 🎥.png",
    b"latin-1 \xe9.png",
    "100%.png",
]


def test_odd_names_arrive_as_the_service_can_show_them(service: Service, tmp_path: Path) -> None:
    shown = ['quote"s and; semicolons.png', "twolines.png", "größe 測試 🎥.png", "latin-1 \ufffd.png", "100%.png"]
    paths = [tmp_path / os.fsdecode(name) for name in NAMES]
    for number, path in enumerate(paths):
        path.write_bytes(photo(50 + number))
    told = documents("--no-detect", *map(str, paths), environment=environment(service))
    names = [service.request("GET", f"/media/{document['id']}").json()["name"] for document in told]
    assert names == shown
    ended = piped("media", "upload", *map(str, paths), environment=environment(service))
    assert len(ended.stdout.splitlines()) == len(NAMES)


def test_files_that_the_service_would_refuse_are_not_sent(service: Service, tmp_path: Path) -> None:
    files = [tmp_path / "a.txt", tmp_path / "empty.png", tmp_path / "text.png", tmp_path / "pipe.png"]
    files[0].write_text("text")
    files[1].touch()
    files[2].write_text("no picture")
    os.mkfifo(files[3])
    told = documents(
        *map(str, files), environment=environment(service, DETECTIONS_URL="http://127.0.0.1:1"), exit_code=1
    )
    assert outcomes(told) == ["failed"] * 4
    assert [bool(document["reason"]) for document in told] == [True] * 4


@pytest.mark.long
def test_a_large_file_is_never_in_memory(service: Service, tmp_path: Path) -> None:
    small, large = video(tmp_path / "small.mp4", MIB), video(tmp_path / "large.mp4", 300 * MIB)
    peaks = [peak_memory(environment(service), "--no-detect", file) for file in (small, large, large)]
    assert max(peaks) - peaks[0] < 16 * MIB, peaks


def peak_memory(environment: dict[str, str], *arguments: str) -> int:
    """The most memory that an upload had, in bytes; it must have succeeded."""
    process = fork_server.Popen(
        [*COMMAND, "media", "upload", *arguments],
        cwd=ROOT,
        env=surroundings() | environment,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


def test_on_a_terminal_a_bar_shows_the_bytes(service: Service, tmp_path: Path) -> None:
    file = video(tmp_path / "bar.mp4", 20 * MIB)
    code, written = on_terminal("media", "upload", "--no-detect", file, columns=80, environment=environment(service))
    assert code == 0
    assert re.search(r"1/1 bar\.mp4.*/21\.0 MB", written)
    assert "uploaded" in written


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"DETECTIONS_URL": ""}, "a.png"),
        ({"DETECTIONS_URL": "ftp://host"}, "a.png"),
        ({"DETECTIONS_URL": "http://a:b@host"}, "a.png"),
        ({"DETECTIONS_TOKEN": "a b"}, "a.png"),
        ({}, "not-there.png"),
        ({}, "."),  # a folder, and not --recursive
    ],
)
def test_a_wrong_address_token_or_file_is_wrong_usage(
    service: Service, tmp_path: Path, changed: dict[str, str], what: str
) -> None:
    (tmp_path / "a.png").write_bytes(photo(9))
    runner = create_command_app().test_cli_runner()
    ended = runner.invoke(args=["media", "upload", str(tmp_path / what)], env=environment(service) | changed)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert "Error" in ended.stderr
