"""The commands' Python environment, made for real, from a wheel of the test's own: no package index is asked."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.paths import ROOT
from tests.repository.wheels import Package, write_wheel

pytestmark = pytest.mark.slow

NOBODY = 65534
RUN = '. bin/_environment.sh; prepare_environment requirements.txt; exec python -c "import tiny; print(tiny.VERSION)"'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the command's file and a lock file of one package, in a path with a space."""
    folder = tmp_path / "a checkout"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "_environment.sh").write_bytes((ROOT / "bin" / "_environment.sh").read_bytes())
    wheel = write_wheel(tmp_path, Package("tiny", "4.2"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "requirements.txt").write_text(f"tiny @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    return folder


def start(
    checkout: Path, path: str = f"/usr/bin:/bin:{sys.base_prefix}/bin", user: int | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", RUN, "command"],
        cwd=checkout,
        env={"HOME": str(checkout), "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        user=user,
    )


@pytest.mark.long
def test_an_environment_that_was_cut_off_is_made_anew_and_then_left_alone(checkout: Path) -> None:
    with start(checkout) as cut_off:
        eventually((checkout / ".venv" / "bin" / "python").exists, "the environment")
        os.killpg(cut_off.pid, signal.SIGKILL)
    (checkout / ".venv" / "left-over").touch()

    with start(checkout) as repaired:
        output, messages = repaired.communicate()
    assert repaired.returncode == 0, messages
    assert output == "4.2\n", messages
    assert "installing requirements.txt" in messages
    assert not (checkout / ".venv" / "left-over").exists()

    with start(checkout) as repeated:
        assert repeated.communicate() == ("4.2\n", "")


@pytest.mark.long
def test_of_two_runs_at_once_one_installs_and_both_work(checkout: Path) -> None:
    with start(checkout) as first, start(checkout) as second:
        results = [first.communicate(), second.communicate()]
    assert [output for output, _ in results] == ["4.2\n", "4.2\n"], results
    assert sum("installing requirements.txt" in messages for _, messages in results) == 1


@pytest.mark.long
def test_a_package_that_is_not_the_locked_one_is_not_installed(checkout: Path) -> None:
    lock = checkout / "requirements.txt"
    lock.write_text(lock.read_text().split("sha256:")[0] + "sha256:" + "0" * 64 + "\n")
    with start(checkout) as refused:
        output, messages = refused.communicate()
    assert refused.returncode == 1
    assert output == ""
    assert "installing requirements.txt failed" in messages
    assert not list((checkout / ".venv").rglob("tiny.py"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_who_may_not_change_an_environment_is_told_so_in_one_line_and_takes_nothing_away(checkout: Path) -> None:
    for folder in checkout.parents:
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
        if folder.name.startswith("pytest-of-"):
            break
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(checkout / "of another user")
    with start(checkout, user=NOBODY) as refused:
        output, messages = refused.communicate()
    assert refused.returncode == 1
    assert output == ""
    assert len(messages.splitlines()) == 1
    assert ".venv is not up to date, or its Python cannot be run by nobody" in messages
    assert (checkout / ".venv" / "bin" / "python").is_symlink()


def test_without_a_fit_python_the_command_says_so_and_makes_nothing(checkout: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "cat", "rm"):
        (programs / name).symlink_to(f"/bin/{name}")
    old = programs / "python3"
    old.write_text("#!/bin/bash\nexit 1\n")
    old.chmod(0o755)
    with start(checkout, path=str(programs)) as refused:
        _, messages = refused.communicate()
    assert refused.returncode == 1
    assert "no Python 3.11 or newer" in messages
    assert not (checkout / ".venv").exists()
