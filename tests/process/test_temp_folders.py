"""Temporary folders: a sweep removes a killed owner's folder and leaves a living owner's."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.process import temp_folders

pytestmark = pytest.mark.slow

PREFIX = "detections-test-"
OWNER = f"""
import os, signal
from app.process import temp_folders
path = temp_folders.unused({PREFIX!r})
temp_folders.create(path)
(path / "file").write_text("content")
child = os.fork()
if child == 0:
    signal.pause()
print(path, child, flush=True)
signal.pause()
"""


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it remembers which folder it found before
    return tmp_path


class Owner:
    """A process that owns a folder, and its fork."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.output = self.process.stdout
        path, fork = self.output.readline().split()
        self.folder, self._fork = Path(path), int(fork)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_fork(self) -> None:
        os.kill(self._fork, signal.SIGKILL)
        self.output.read()  # to its end, which comes once nobody can write any more


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner()
    yield owner
    owner.kill()
    owner.output.close()


def test_a_folder_stays_while_its_owner_or_a_fork_of_it_lives_and_goes_after_both(owner: Owner) -> None:
    assert temp_folders.sweep(PREFIX) == []
    owner.kill()
    assert temp_folders.sweep(PREFIX) == []
    assert (owner.folder / "file").read_text() == "content"
    owner.kill_fork()
    assert temp_folders.sweep(PREFIX) == [owner.folder]
    assert not owner.folder.exists()


def test_what_is_no_folder_of_this_kind_is_left_alone(temporary_folder: Path) -> None:
    elsewhere = temporary_folder / "elsewhere"
    elsewhere.mkdir()
    (temporary_folder / f"{PREFIX}link").symlink_to(elsewhere)
    (temporary_folder / f"{PREFIX}file").touch()
    before = sorted(temporary_folder.iterdir())
    assert temp_folders.sweep(PREFIX) == []
    assert sorted(temporary_folder.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_user_s_folder_is_left_alone(temporary_folder: Path) -> None:
    foreign = temporary_folder / f"{PREFIX}foreign"
    foreign.mkdir()
    os.chown(foreign, 12345, 12345)
    assert temp_folders.sweep(PREFIX) == []
    assert foreign.exists()


def test_a_new_folder_that_a_sweep_finds_before_it_is_locked_is_made_again(temporary_folder: Path) -> None:
    path = temp_folders.unused(PREFIX)
    created: list[int] = []
    sweeps_done = threading.Event()

    def sweep_without_end() -> None:
        while not sweeps_done.is_set():
            temp_folders.sweep(PREFIX)

    sweeper = threading.Thread(target=sweep_without_end)
    sweeper.start()
    try:
        for number in range(200):
            mine = path.with_name(f"{path.name}{number}")
            created.append(temp_folders.create(mine))
            assert mine.is_dir()
    finally:
        sweeps_done.set()
        sweeper.join()
    assert len(list(temporary_folder.iterdir())) == 200
    for fd in created:
        os.close(fd)
    assert len(temp_folders.sweep(PREFIX)) == 200
