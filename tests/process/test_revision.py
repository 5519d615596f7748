"""The revision of the running code, read from a checkout without git."""

import subprocess
from pathlib import Path

import pytest

from app.process import revision


def git(folder: Path, *arguments: str) -> str:
    names = ("-c", "user.name=ada", "-c", "user.email=ada@example", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize("packed", [False, True])
def test_the_commit_that_is_checked_out_is_returned(packed: bool, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    if packed:
        git(tmp_path, "pack-refs", "--all")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert revision.of(tmp_path) == commit
    git(tmp_path, "worktree", "add", "-q", str(tmp_path / "other"), "-b", "other")
    assert revision.of(tmp_path / "other") == commit
    git(tmp_path, "checkout", "-q", "--detach")
    assert revision.of(tmp_path) == commit


def test_without_a_checkout_it_is_unknown(tmp_path: Path) -> None:
    assert revision.of(tmp_path) == "unknown"
