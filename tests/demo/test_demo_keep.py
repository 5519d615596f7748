"""`--keep`: what the demo leaves running, and where."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from app.demo.folder import DemoFolder
from app.demo.process import StepFailed
from tests.demo.demo_run import Run, assert_nothing_left, processes_of, run_demo
from tests.eventually import eventually
from tests.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A demo that ended with --keep; what it left running is ended behind the last test of it."""
    folder = tmp_path_factory.mktemp("demo")
    try:
        yield run_demo(folder, "--keep", folder / "kept")
    finally:
        for process in processes_of(folder / "scratch"):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def told(run: Run, what: str) -> str:
    """What it says behind `what`."""
    found = re.search(f"^{what}: +(.+)$", run.output, re.MULTILINE)
    assert found, run.output + run.messages
    return found[1]


def shell(run: Run, line: str) -> list[str]:
    """A line that a person may copy, to be run in the same surroundings as the demo, so that it is found again."""
    return ["env", "-u", "FLASK_APP", f"TMPDIR={run.scratch}", "sh", "-c", line]


def refuses(session: requests.Session, address: str) -> bool:
    try:
        session.get(f"{address}/_log", timeout=30)
    except requests.ConnectionError:
        return True
    return False


def test_the_page_is_there_and_the_outbox_opens_to_the_administrators_token_only(
    kept: Run, session: requests.Session
) -> None:
    page = told(kept, "page").split()[0]
    assert "<title>Detections</title>" in session.get(page, timeout=30).text
    for whose, status in (("administrator, a day", 200), ("user, for a day", 403)):
        headers = {"Authorization": f"Bearer {told(kept, whose)}"}
        assert session.get(f"{page}outbox", headers=headers, timeout=30).status_code == status


def test_a_command_runs_as_told_with_the_settings_of_the_service(kept: Run) -> None:
    line = shell(kept, told(kept, "commands").replace("outbox status", "media list"))
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "astronaut.jpg" in done.stdout


def test_an_outage_begins_and_ends_as_told(kept: Run, session: requests.Session) -> None:
    address = told(kept, "annotations service").split()[0]
    assert not refuses(session, address)
    subprocess.run(shell(kept, told(kept, "an outage")), check=True)
    eventually(lambda: refuses(session, address))
    in_the_background = f"{told(kept, 'its end')} >{kept.scratch.parent / 'annotations.log'} 2>&1 &"
    subprocess.run(shell(kept, in_the_background), cwd=ROOT, check=True)
    eventually(lambda: not refuses(session, address))


def test_what_is_kept_runs_on_until_it_is_stopped_as_told(kept: Run, session: requests.Session) -> None:
    folder = kept.scratch.parent
    again = run_demo(folder, "--keep", folder / "kept")
    assert again.exit_code == 1
    assert "is in use by a demo that is still running" in again.messages

    curl = re.search(r"curl -H 'Authorization: (Bearer \S+)' -F file=@(\S+) (\S+)", kept.output)
    assert curl
    with Path(curl[2]).open("rb") as photo:
        answer = session.post(curl[3], headers={"Authorization": curl[1]}, files={"file": photo}, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["duplicate"] is True

    stop = told(kept, "stop")
    assert stop in again.messages
    subprocess.run(shell(kept, stop), check=False)  # after an outage only the service is there of those it names
    for restarted in processes_of(kept.scratch, "app.demo.annotations"):
        os.kill(restarted, signal.SIGTERM)
    assert_nothing_left(kept.scratch)


def test_the_folder_of_a_demo_that_has_ended_is_emptied_and_used_again(tmp_path: Path) -> None:
    earlier = DemoFolder.named(tmp_path / "kept")
    (earlier.path / "images").mkdir()
    (earlier.path / "images" / "photo.jpg").touch()
    (earlier.path / "detections.db").touch()
    (earlier.path / "processes").write_text("1 2")
    with pytest.raises(StepFailed, match="`kill 1 2`"):
        DemoFolder.named(tmp_path / "kept")
    earlier.leave({}, [1, 2])
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
