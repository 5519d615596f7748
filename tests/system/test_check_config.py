"""`gunicorn --check-config`, as docs/operations.md tells it to be used before a start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.service import ROOT, SECRET


def checked(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """gunicorn as it ended; `folder` is its place for temporary files as well."""
    surroundings = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", *arguments, "wsgi:app"],
        cwd=ROOT,
        env=surroundings
        | {"JWT_SECRET_KEY": SECRET, "TMPDIR": str(folder), "DATABASE_URL": f"sqlite:///{folder}/detections.db"}
        | {"IMAGES_DIR": f"{folder}/images", "VIDEOS_DIR": f"{folder}/videos"}
        | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("arguments", [("--check-config",), ()], ids=["argument", "variable"])
def test_right_settings_are_found_right_and_nothing_is_left_of_it(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    variable = {} if arguments else {"GUNICORN_CMD_ARGS": "--check-config"}
    done = checked(tmp_path, *arguments, **variable)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.glob("detections-metrics-*")) == []


def test_a_wrong_setting_is_told_in_one_line(tmp_path: Path) -> None:
    done = checked(tmp_path, "--check-config", MAX_UPLOAD_BYTES="16GB")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "detections: MAX_UPLOAD_BYTES must be a whole number, not '16GB'.\n"
