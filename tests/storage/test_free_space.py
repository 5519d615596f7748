"""Free space less what uploads have declared, in this process and in others, alive or dead."""

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from app.errors import StorageFull
from app.storage import INCOMING, Storage
from app.storage.free_space import ADMISSION_SECONDS, COUNT_SECONDS, LARGE_BYTES, FreeSpace, incoming_name

pytestmark = pytest.mark.slow

SLACK = 1 << 30
"""Others use this disk too."""

OTHER_PROCESS = """
import sys
from pathlib import Path
from app.storage import Storage
storage = Storage({"Image": Path(sys.argv[1])})
with storage.incoming("Image", int(sys.argv[2])) as incoming:
    incoming.write(b"x" * 1000)
    print("promised", flush=True)
    sys.stdin.read()
"""


def open_storage(folder: Path) -> Storage:
    storage = Storage({"Image": folder / "images", "Video": folder / "videos"})
    storage.prepare()
    return storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path)


@pytest.fixture
def share(storage: Storage) -> int:
    """Return more than half of the free space."""
    return storage.free_bytes(storage.folders[0]) * 6 // 10


@contextmanager
def promised_by_another_process(folder: Path, declared_bytes: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OTHER_PROCESS, str(folder), str(declared_bytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "promised\n"
        yield other


def test_what_another_process_has_promised_is_not_there_for_us_until_its_upload_has_ended(
    storage: Storage, share: int, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    with promised_by_another_process(images, share):
        left = shutil.disk_usage(images).free - storage.free_bytes(images)
        assert abs(left - (share - 1000)) < SLACK
        for media_type in ("Image", "Video"):
            with pytest.raises(StorageFull), storage.incoming(media_type, share):
                pytest.fail("that room is promised")
        with pytest.raises(StorageFull):
            storage.admit(share)
        storage.admit(1)
    storage.admit(share)
    with storage.incoming("Image", share):
        pass


@pytest.mark.long
def test_what_a_killed_process_had_promised_holds_nobody_up(storage: Storage, share: int, tmp_path: Path) -> None:
    images = tmp_path / "images"
    with promised_by_another_process(images, share) as other:
        other.kill()
    assert len(list(storage.leftovers())) == 1
    storage.admit(share)
    with storage.incoming("Image", share):
        pass
    assert storage.free_bytes(images, enough=share) >= share


def test_of_uploads_that_begin_at_once_in_many_processes_only_as_many_are_let_in_as_there_is_room_for(
    share: int, tmp_path: Path
) -> None:
    storages = [open_storage(tmp_path) for _process in range(8)]  # each has its own locks, like processes
    at_once, all_tried = threading.Barrier(len(storages)), threading.Barrier(len(storages))

    def upload(number: int) -> bool:
        with ExitStack() as stack:
            at_once.wait(30)
            try:
                stack.enter_context(storages[number].incoming(("Image", "Video")[number % 2], share))
            except StorageFull:
                admitted = False
            else:
                admitted = True
            all_tried.wait(30)
            return admitted

    with ThreadPoolExecutor(len(storages)) as clients:
        for _time in range(20):
            assert sum(clients.map(upload, range(len(storages)))) == 1


def test_a_process_that_stands_still_while_it_is_admitted_does_not_keep_others_out(
    storage: Storage, tmp_path: Path
) -> None:
    fd = os.open(tmp_path / "images" / INCOMING, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        began = time.monotonic()
        with storage.incoming("Video", LARGE_BYTES):
            assert time.monotonic() - began >= ADMISSION_SECONDS
        with storage.incoming("Image", 1000):
            pass
    finally:
        os.close(fd)


def test_small_uploads_know_of_others_within_a_second_and_are_refused_by_what_is_so_now(tmp_path: Path) -> None:
    seconds = 0.0
    room = FreeSpace([tmp_path], monotonic=lambda: seconds)
    free = shutil.disk_usage(tmp_path).free
    assert room.has(tmp_path, 1000)
    promise = tmp_path / incoming_name(free + SLACK)
    with promise.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert room.has(tmp_path, 1000)
        seconds += COUNT_SECONDS
        assert not room.has(tmp_path, 1000)
        promise.unlink()
        assert room.has(tmp_path, 1000)


@pytest.mark.parametrize(
    "name", ["x.part", "x-.part", "x-9x.part", "x-²9999999999999999.part", "x--9999999.part", ".nfs8-x"]
)
def test_names_that_promise_nothing_take_no_room(name: str, tmp_path: Path) -> None:
    room = FreeSpace([tmp_path])
    before = room.available(tmp_path)
    (tmp_path / name).touch()
    assert abs(room.available(tmp_path) - before) < SLACK


def test_bytes_beyond_the_declared_ones_promise_nothing_back(tmp_path: Path) -> None:
    room = FreeSpace([tmp_path])
    (tmp_path / incoming_name(3)).write_bytes(bytes(1000))
    assert room.available(tmp_path) <= shutil.disk_usage(tmp_path).free + SLACK
