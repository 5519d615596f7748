"""The bugs that `python -m tests.planted_bugs` plants still have something to replace."""

import sys

from tests import fork_server


def test_every_bug_can_be_planted() -> None:
    planted = fork_server.run([sys.executable, "-m", "tests.bugs"])
    assert planted.returncode == 0, planted.stdout + planted.stderr
