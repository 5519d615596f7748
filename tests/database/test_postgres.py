"""The tests' PostgreSQL starts on a new machine where root has an unusual PATH.

The new machine is a mount namespace with the original system users.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.servers.postgres import SYSTEM_USER

NEW_MACHINE = ["unshare", "--mount", "bash", "-euc", 'mount --bind "$0" /etc/passwd; exec "$@"']
HIDE_SYSTEM_PROGRAMS = ["bash", "-euc", 'mount -t tmpfs tmpfs /usr/sbin; exec "$0" "$@"']


def _why_not() -> str:
    if os.geteuid() != 0:
        return "only root needs another user to run PostgreSQL"
    if not Path("/usr/sbin/useradd").is_file():
        return "this system has no /usr/sbin/useradd"
    probe = subprocess.run([*NEW_MACHINE, "/etc/passwd", "true"], capture_output=True, text=True, check=False)
    return "" if probe.returncode == 0 else f"no mount namespace here: {probe.stderr.strip()[:200]}"


WHY_NOT = _why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "mount namespaces work")]


@pytest.fixture
def new_machine(tmp_path: Path) -> list[str]:
    """Return the prefix of a command that runs there."""
    users = Path("/etc/passwd").read_text().splitlines(keepends=True)
    before = tmp_path / "passwd"
    before.write_text("".join(user for user in users if not user.startswith(f"{SYSTEM_USER}:")))
    return [*NEW_MACHINE, str(before)]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_useradd_is_found_without_its_folder_on_the_path(new_machine: list[str]) -> None:
    prepared = "from tests.servers.postgres import prepare_for_root; prepare_for_root()"
    script = f"{prepared}; import shutil; print(shutil.which('useradd'))"
    found = run(*new_machine, sys.executable, "-c", script)
    assert found.stdout == "/usr/sbin/useradd\n", found.stderr


@pytest.mark.long
def test_where_there_is_no_useradd_pytest_says_so_in_one_line(new_machine: list[str]) -> None:
    pytest_alone = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/database/test_postgres.py"]
    ended = run(*new_machine, *HIDE_SYSTEM_PROGRAMS, *pytest_alone)
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    [line] = [line for line in (ended.stdout + ended.stderr).splitlines() if line]
    assert "useradd is missing" in line
