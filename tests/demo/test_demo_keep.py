"""`--keep`: what the demo leaves running, and where."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from app.demo.failure import StepFailed
from app.demo.folder import DemoFolder
from tests.demo.demo_run import Run, assert_nothing_left, processes_of, run_demo


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Run]:
    """A demo that ended with --keep; what it left running is ended afterwards."""
    try:
        yield run_demo(tmp_path, "--keep", tmp_path / "kept")
    finally:
        for process in processes_of(tmp_path / "scratch"):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def test_what_is_kept_runs_on_as_told_until_it_is_stopped_as_told(kept: Run, tmp_path: Path) -> None:
    assert kept.exit_code == 0, kept.output + kept.messages
    again = run_demo(tmp_path, "--keep", tmp_path / "kept")
    assert again.exit_code == 1
    assert "is in use by a demo that is still running" in again.messages

    curl = re.search(r"curl -H 'Authorization: (Bearer \S+)' -F file=@(\S+) (\S+)", kept.output)
    assert curl
    with requests.Session() as session, Path(curl[2]).open("rb") as photo:
        session.trust_env = False
        answer = session.post(curl[3], headers={"Authorization": curl[1]}, files={"file": photo}, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["duplicate"] is True

    stop = re.search(r"(kill [\d ]+)\n", kept.output)
    assert stop
    assert stop[1] in again.messages
    for process in map(int, stop[1].split()[1:]):
        os.kill(process, signal.SIGTERM)
    assert_nothing_left(kept.scratch)


def test_the_folder_of_a_demo_that_has_ended_is_emptied_and_used_again(tmp_path: Path) -> None:
    earlier = DemoFolder.named(tmp_path / "kept")
    (earlier.path / "images").mkdir()
    (earlier.path / "images" / "photo.jpg").touch()
    (earlier.path / "detections.db").touch()
    earlier.note([1, 2])
    with pytest.raises(StepFailed, match="`kill 1 2`"):
        DemoFolder.named(tmp_path / "kept")
    earlier.leave()
    again = DemoFolder.named(tmp_path / "kept")
    assert [path.name for path in again.path.iterdir()] == ["processes"]
    again.remove()
    assert not (tmp_path / "kept").exists()


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    letter = tmp_path / "kept" / "letter.txt"
    letter.write_text("mine")
    run = run_demo(tmp_path, "--keep", tmp_path / "kept")
    assert run.exit_code == 1
    assert "no earlier demo made it" in run.messages
    assert letter.read_text() == "mine"
