"""What people see when the service cannot start as it was set up."""

import os
import subprocess
import sys

import pytest

from tests import fork_server
from tests.paths import ROOT


def start(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return fork_server.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("JWT_")} | settings,
        timeout=30,
    )


@pytest.mark.parametrize("command", [("gunicorn", "-c", "gunicorn.conf.py", "-b", "127.0.0.1:0"), ("flask", "routes")])
def test_a_missing_key_stops_the_start_with_one_line_that_names_it(command: tuple[str, ...]) -> None:
    ended = start(*command)
    assert ended.returncode == 1
    [line] = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("detections: ")
    assert "JWT_SECRET_KEY" in line


def test_a_weak_key_is_refused_without_being_shown() -> None:
    ended = start("gunicorn", "-c", "gunicorn.conf.py", "-b", "127.0.0.1:0", JWT_SECRET_KEY="hunter2")
    assert ended.returncode == 1
    assert "JWT_SECRET_KEY" in ended.stderr
    assert "hunter2" not in ended.stderr
